"""Keys and sessions of debugging, on both databases."""

from __future__ import annotations

from datetime import timedelta

import gevent
import pytest
from sqlalchemy import update

from tests.unit.storage.conftest import OTHER_TENANT, TENANT
from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import BadRequest
from tidegate.storage import (
    Database,
    debug_keys,
    debug_sessions,
    declarations,
    generation,
    installations,
    references,
    serverless_runtimes,
)
from tidegate.storage.tables import debug_keys as keys_table
from tidegate.storage.tables import plugins

PLUGIN = "acme/weather"
INSTALLED = f"{PLUGIN}:0.0.1@{'a' * 64}"
NEWER = f"{PLUGIN}:0.0.2@{'b' * 64}"
DEBUGGED = f"{PLUGIN}:0.0.3@{'c' * 64}"
CHANGED = f"{PLUGIN}:0.0.3@{'d' * 64}"
TEXT = '{"tool":{"identity":{"name":"weather"}}}'


def install(conn, identifier: str = INSTALLED):
    return installations.install(conn, TENANT, identifier, TEXT, source="package").installation


def connect(conn, identifier: str = DEBUGGED, owner: str = "here") -> int | None:
    return debug_sessions.connect(conn, TENANT, identifier, TEXT, owner)


def found(conn):
    row = installations.find(conn, TENANT, PLUGIN)
    return (row.identifier, row.runtime_type, row.source) if row is not None else None


def refers(conn) -> dict[str, int]:
    rows = conn.execute(plugins.select())
    return {row.plugin_unique_identifier: row.refers for row in rows}


# --------------------------------------------------------------------------- keys


def test_each_tenant_has_one_key(database: Database):
    with database.write() as conn:
        key = debug_keys.fetch(conn, TENANT)
        assert debug_keys.fetch(conn, TENANT.upper()) == key
        assert debug_keys.tenant_of(conn, key) == TENANT
        assert debug_keys.fetch(conn, OTHER_TENANT) != key
        assert debug_keys.tenant_of(conn, "nobody's") is None


def test_asking_makes_a_key_last_and_a_key_that_ran_out_is_replaced(database: Database):
    soon = SYSTEM_CLOCK.now() + timedelta(minutes=1)
    with database.write() as conn:
        key = debug_keys.fetch(conn, TENANT)
        conn.execute(update(keys_table).values(expires_at=soon))
        debug_keys.fetch(conn, TENANT)
        (row,) = conn.execute(keys_table.select())
        assert row.expires_at > soon + timedelta(minutes=100)
        conn.execute(update(keys_table).values(expires_at=soon - timedelta(minutes=2)))
        assert debug_keys.tenant_of(conn, key) is None
        assert debug_keys.fetch(conn, TENANT) != key


def test_two_who_ask_at_once_get_the_same_key(database: Database):
    def fetch() -> str:
        with database.write() as conn:
            return debug_keys.fetch(conn, TENANT)

    asking = [gevent.spawn(fetch) for _ in range(4)]
    gevent.joinall(asking, raise_error=True)
    assert len({one.get() for one in asking}) == 1


def test_D_67_a_tenant_that_is_none_is_refused(database: Database):
    with database.write() as conn, pytest.raises(BadRequest):
        debug_keys.fetch(conn, "nobody")


# --------------------------------------------------------------------------- sessions


def test_a_debugged_plugin_is_an_installation_while_it_is_connected(database: Database):
    with database.write() as conn:
        before = generation.current(conn)
        assert connect(conn) > before
        assert found(conn) == (DEBUGGED, "remote", "remote")
        assert declarations.get(conn, DEBUGGED).text == TEXT
        assert debug_sessions.disconnect(conn, TENANT, DEBUGGED, "here") > before + 1
        assert found(conn) is None
        assert declarations.get(conn, DEBUGGED) is None
        assert refers(conn) == {}


def test_D_55_an_installation_is_shadowed_and_comes_back(database: Database):
    with database.write() as conn:
        row = install(conn)
        connect(conn)
        assert found(conn) == (DEBUGGED, "remote", "remote")
        assert references.is_used(conn, INSTALLED)
        assert declarations.get(conn, INSTALLED) is not None
        debug_sessions.disconnect(conn, TENANT, DEBUGGED, "here")
        assert installations.find(conn, TENANT, PLUGIN).id == row.id
        assert found(conn) == (INSTALLED, "local", "package")
        assert refers(conn) == {INSTALLED: 1}


def test_a_changed_plugin_takes_the_place_of_its_predecessor_and_shadows_the_same(database):
    with database.write() as conn:
        install(conn)
        connect(conn)
        connect(conn, CHANGED)
        assert found(conn)[0] == CHANGED
        assert debug_sessions.disconnect(conn, TENANT, DEBUGGED, "here") is None
        assert found(conn)[0] == CHANGED
        debug_sessions.disconnect(conn, TENANT, CHANGED, "here")
        assert found(conn)[0] == INSTALLED


def test_connecting_twice_is_connecting_once(database: Database):
    with database.write() as conn:
        install(conn)
        connect(conn)
        connect(conn)
        debug_sessions.disconnect(conn, TENANT, DEBUGGED, "here")
        assert found(conn)[0] == INSTALLED
        assert refers(conn) == {INSTALLED: 1}


def test_what_was_done_to_the_installation_meanwhile_stands(database: Database):
    with database.write() as conn:
        install(conn)
        connect(conn)
        upgraded = installations.upgrade(conn, TENANT, DEBUGGED, NEWER, TEXT, source="package")
        assert upgraded is not None
        debug_sessions.disconnect(conn, TENANT, DEBUGGED, "here")
        assert found(conn)[0] == NEWER
        connect(conn)
        installations.uninstall(conn, TENANT, installations.find(conn, TENANT, PLUGIN).id)
        debug_sessions.disconnect(conn, TENANT, DEBUGGED, "here")
        assert found(conn) is None


def test_an_uninstalled_one_does_not_come_back_with_the_next_connection(database: Database):
    with database.write() as conn:
        install(conn)
        connect(conn)
        installations.uninstall(conn, TENANT, installations.find(conn, TENANT, PLUGIN).id)
        connect(conn, CHANGED)
        debug_sessions.disconnect(conn, TENANT, CHANGED, "here")
        assert found(conn) is None


def test_what_a_dead_host_left_is_put_back_and_what_another_has_stays(database: Database):
    with database.write() as conn:
        connect(conn)
        debug_sessions.connect(conn, OTHER_TENANT, CHANGED, TEXT, "elsewhere")
        (gone,) = debug_sessions.disconnect_all(conn, "here")
        assert (gone.identifier, gone.tenant) == (DEBUGGED, TENANT)
        assert found(conn) is None
        assert debug_sessions.find(conn, OTHER_TENANT, PLUGIN).owner == "elsewhere"


def test_rows_that_nobody_renews_are_put_back(database: Database):
    with database.write() as conn:
        connect(conn)
        assert debug_sessions.renew(conn, "here") == 1
        assert debug_sessions.disconnect_lost(conn, SYSTEM_CLOCK.now() - timedelta(minutes=5)) == []
        (gone,) = debug_sessions.disconnect_lost(conn, SYSTEM_CLOCK.now() + timedelta(minutes=1))
        assert gone.identifier == DEBUGGED


# --------------------------------------------------------------------------- serverless


def test_a_function_is_kept_replaced_switched_and_goes_with_the_last_reference(database):
    from tidegate.ids import PluginIdentifier

    with database.write() as conn:
        row = install(conn)
        assert serverless_runtimes.find(conn, INSTALLED) is None
        assert serverless_runtimes.switch(conn, INSTALLED, "http://x", "x") is False
        serverless_runtimes.put(conn, PluginIdentifier.parse(INSTALLED), "http://one", "one")
        serverless_runtimes.put(conn, PluginIdentifier.parse(INSTALLED), "http://two", "two")
        assert serverless_runtimes.find(conn, INSTALLED).url == "http://two"
        before = generation.current(conn)
        assert serverless_runtimes.switch(conn, INSTALLED, "http://three", "three") is True
        assert generation.current(conn) > before
        assert serverless_runtimes.find(conn, INSTALLED).name == "three"
        installations.uninstall(conn, TENANT, row.id)
        assert serverless_runtimes.find(conn, INSTALLED) is None


def test_D_66_the_late_end_at_one_host_leaves_the_connection_at_another_alone(database: Database):
    with database.write() as conn:
        connect(conn, owner="one")
        debug_sessions.connect(conn, TENANT, DEBUGGED, TEXT, "other", "other:5004")
        assert debug_sessions.disconnect(conn, TENANT, DEBUGGED, "one") is None
        again = debug_sessions.connect(conn, TENANT, DEBUGGED, TEXT, "one", take_over=False)
        assert again is None
        assert debug_sessions.find_version(conn, TENANT, DEBUGGED).address == "other:5004"
        assert debug_sessions.find_version(conn, OTHER_TENANT, DEBUGGED) is None
        assert debug_sessions.disconnect(conn, TENANT, DEBUGGED, "other") is not None
        assert debug_sessions.find_version(conn, TENANT, DEBUGGED) is None
        assert found(conn) is None
