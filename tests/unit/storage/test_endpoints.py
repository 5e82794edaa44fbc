"""Endpoints: hooks, counters, switching, and what an uninstall takes with it."""

from __future__ import annotations

import re

import gevent
import pytest
from sqlalchemy import Connection, text

from tests.unit.storage.conftest import OTHER_TENANT, TENANT
from tidegate.ids import row_id
from tidegate.storage import Database, endpoints, generation, installations

WEATHER = f"acme/weather:0.0.1@{'a' * 64}"
NEWER = f"acme/weather:0.0.2@{'b' * 64}"


@pytest.fixture
def installed(database: Database) -> Database:
    """A database in which both tenants have the plugin."""
    with database.write() as conn:
        for tenant in (TENANT, OTHER_TENANT):
            installations.install(conn, tenant, WEATHER, '{"endpoint":{}}', source="package")
    return database


def _create(conn: Connection, name: str = "hook", tenant: str = TENANT) -> endpoints.Endpoint:
    made = endpoints.create(conn, tenant, WEATHER, user_id="u", name=name, settings={"a": "sealed"})
    assert made is not None
    return made


def _counters(conn: Connection) -> tuple[int, int]:
    row = installations.find(conn, TENANT, "acme/weather")
    assert row is not None
    return row.endpoints_setups, row.endpoints_active


def test_a_new_endpoint_is_enabled_and_found_by_its_hook(installed: Database) -> None:
    with installed.write() as conn:
        made = _create(conn)
        other = _create(conn)
    with installed.read() as conn:
        assert endpoints.by_hook(conn, made.hook_id) == made
        assert endpoints.get(conn, TENANT, made.id) == made
        assert endpoints.get(conn, OTHER_TENANT, made.id) is None
        assert endpoints.get(conn, TENANT, "not a uuid") is None, "D-19"
        assert endpoints.by_hook(conn, "no") is None
        assert _counters(conn) == (2, 2)
    assert (made.enabled, made.name, made.settings) == (True, "hook", {"a": "sealed"})
    assert made.expired_at.year == 2050
    assert made.hook_id != other.hook_id


def test_D_39_a_hook_is_sixteen_characters_that_cannot_be_guessed() -> None:
    hooks = {endpoints.new_hook_id() for _ in range(200)}
    assert len(hooks) == 200
    assert all(re.fullmatch("[a-z0-9]{16}", hook) for hook in hooks)


def test_a_caller_that_had_to_know_the_id_before_gives_it(installed: Database) -> None:
    wanted = str(row_id())
    with installed.write() as conn:
        made = endpoints.create(
            conn, TENANT, WEATHER, user_id="u", name="n", settings={}, endpoint_id=wanted
        )
    assert made is not None
    assert made.id == wanted


def test_there_is_none_for_a_version_that_the_tenant_has_not(installed: Database) -> None:
    with installed.write() as conn:
        made = endpoints.create(conn, TENANT, NEWER, user_id="u", name="n", settings={})
        assert made is None
        assert endpoints.page(conn, TENANT, 0, 10) == []


def test_pages_are_newest_first_and_of_one_tenant(installed: Database) -> None:
    with installed.write() as conn:
        made = [_create(conn, str(number)).id for number in range(5)]
        _create(conn, "foreign", OTHER_TENANT)
    with installed.read() as conn:
        first = endpoints.page(conn, TENANT, 0, 3)
        rest = endpoints.page_of_plugin(conn, TENANT, "acme/weather", 3, 3)
        none = endpoints.page_of_plugin(conn, TENANT, "acme/clock", 0, 3)
    assert [one.id for one in first + rest] == made[::-1]
    assert none == []


def test_an_update_changes_name_and_settings_only(installed: Database) -> None:
    with installed.write() as conn:
        made = _create(conn)
        endpoints.set_enabled(conn, TENANT, made.id, False)
    with installed.write() as conn:
        changed = endpoints.update_settings(conn, TENANT, made.id, name="new", settings={"b": 1})
        assert changed is not None
        assert (changed.name, changed.settings, changed.enabled) == ("new", {"b": 1}, False)
        assert changed.hook_id == made.hook_id
        foreign = endpoints.update_settings(conn, OTHER_TENANT, made.id, name="x", settings={})
        assert foreign is None
        assert endpoints.update_settings(conn, TENANT, "x", name="x", settings={}) is None


def test_switching_twice_counts_once(installed: Database) -> None:
    with installed.write() as conn:
        made = _create(conn)
        for enabled, active in ((False, 0), (False, 0), (True, 1), (True, 1)):
            found = endpoints.set_enabled(conn, TENANT, made.id, enabled)
            assert found is not None
            assert found.enabled is enabled
            assert _counters(conn) == (1, active)
        assert endpoints.set_enabled(conn, OTHER_TENANT, made.id, False) is None


def test_D_17_removing_a_disabled_endpoint_leaves_the_active_ones_counted(
    installed: Database,
) -> None:
    with installed.write() as conn:
        stays, goes = _create(conn), _create(conn)
        endpoints.set_enabled(conn, TENANT, goes.id, False)
        assert endpoints.remove(conn, OTHER_TENANT, goes.id) is None
        gone = endpoints.remove(conn, TENANT, goes.id)
        assert gone is not None
        assert gone.id == goes.id
        assert endpoints.remove(conn, TENANT, goes.id) is None
        assert _counters(conn) == (1, 1)
        assert endpoints.by_hook(conn, stays.hook_id) is not None


def test_counters_that_an_old_daemon_left_wrong_become_right(installed: Database) -> None:
    with installed.write() as conn:
        conn.execute(text("UPDATE plugin_installations SET endpoints_active = -3"))
        made = _create(conn)
        assert _counters(conn) == (1, 1)
        endpoints.remove(conn, TENANT, made.id)
        assert _counters(conn) == (0, 0)


def test_D_11_an_uninstall_takes_the_endpoints_of_that_tenant_and_an_upgrade_keeps_them(
    installed: Database,
) -> None:
    with installed.write() as conn:
        mine, foreign = _create(conn), _create(conn, tenant=OTHER_TENANT)
        installations.upgrade(conn, TENANT, WEATHER, NEWER, '{"endpoint":{}}', source="package")
        assert endpoints.by_hook(conn, mine.hook_id) is not None
        row = installations.find(conn, TENANT, "acme/weather")
        assert row is not None
        assert (row.endpoints_setups, row.endpoints_active) == (1, 1)
        installations.uninstall(conn, TENANT, row.id)
    with installed.read() as conn:
        assert endpoints.by_hook(conn, mine.hook_id) is None
        assert endpoints.by_hook(conn, foreign.hook_id) is not None


def test_every_change_moves_the_generation(installed: Database) -> None:
    with installed.write() as conn:
        numbers = [generation.current(conn)]
        made = _create(conn)
        numbers.append(generation.current(conn))
        endpoints.update_settings(conn, TENANT, made.id, name="n", settings={})
        numbers.append(generation.current(conn))
        endpoints.set_enabled(conn, TENANT, made.id, False)
        numbers.append(generation.current(conn))
        endpoints.remove(conn, TENANT, made.id)
        numbers.append(generation.current(conn))
    assert numbers == sorted(set(numbers))


def test_D_13_settings_that_cannot_be_read_are_none(installed: Database) -> None:
    with installed.write() as conn:
        made = _create(conn)
        conn.execute(text("UPDATE endpoints SET settings = '[', name = NULL, expired_at = NULL"))
        found = endpoints.by_hook(conn, made.hook_id)
    assert found is not None
    assert (found.settings, found.name, found.expired_at.year) == ({}, "default", 2050)


def test_D_60_a_plugin_with_the_longest_identifier_can_have_one(database: Database) -> None:
    longest = f"{'a' * 64}/{'b' * 118}:10.0.1@{'a' * 64}"
    assert len(longest) == 255, "what the column of identifiers takes"
    with database.write() as conn:
        installations.install(conn, TENANT, longest, "{}", source="package")
        made = endpoints.create(conn, TENANT, longest, user_id="u", name="n", settings={})
    assert made is not None


def test_switching_and_uninstalling_at_once_do_not_wait_for_each_other(
    installed: Database,
) -> None:
    with installed.write() as conn:
        made = [_create(conn).id for _ in range(6)]
        row = installations.find(conn, TENANT, "acme/weather")
    assert row is not None

    def switch(endpoint: str) -> None:
        for enabled in (False, True) * 3:
            with installed.write() as conn:
                endpoints.set_enabled(conn, TENANT, endpoint, enabled)

    def uninstall() -> None:
        with installed.write() as conn:
            installations.uninstall(conn, TENANT, row.id)

    work = [gevent.spawn(switch, one) for one in made] + [gevent.spawn(uninstall)]
    gevent.joinall(work, timeout=20, raise_error=True)
    assert all(one.successful() for one in work)
    with installed.read() as conn:
        assert endpoints.page(conn, TENANT, 0, 10) == []
