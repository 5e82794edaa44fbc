"""Installing, uninstalling, upgrading: which rows come and go (spec/http/02 section 3)."""

from __future__ import annotations

import json

import gevent
import pytest
from sqlalchemy import Connection, select, text

from tests.unit.storage.conftest import OTHER_TENANT, TENANT
from tidegate.errors import BadRequest
from tidegate.storage import Database, declarations, generation, installations
from tidegate.storage.tables import capabilities, plugins

OLD = f"acme/weather:0.0.1@{'a' * 64}"
NEW = f"acme/weather:0.0.2@{'b' * 64}"
TOOL = json.dumps({"tool": {"identity": {"name": "weather"}}, "version": "0.0.1"})
MODEL = json.dumps({"model": {"provider": "openai"}, "version": "0.0.2"})


def _install(
    conn: Connection, tenant: str = TENANT, identifier: str = OLD
) -> installations.Installed:
    return installations.install(conn, tenant, identifier, TOOL, source="package", meta={"a": 1})


def _refers(conn: Connection) -> dict[str, int]:
    rows = conn.execute(select(plugins.c.plugin_unique_identifier, plugins.c.refers))
    return {identifier: refers for identifier, refers in rows}


def _providers(conn: Connection, tenant: str = TENANT) -> dict[str, list[str]]:
    found = {}
    for kind, table in capabilities.items():
        rows = conn.execute(select(table.c.provider).where(table.c.tenant_id == tenant))
        if names := list(rows.scalars()):
            found[kind] = names
    return found


def test_install_makes_every_row(database: Database) -> None:
    with database.write() as conn:
        made = _install(conn)
    assert made.created
    with database.read() as conn:
        found = installations.find(conn, TENANT, "acme/weather")
        assert found == made.installation
        assert (found.tenant, found.identifier, found.plugin_id) == (TENANT, OLD, "acme/weather")
        assert (found.source, found.meta, found.runtime_type) == ("package", {"a": 1}, "local")
        assert found.created_at.tzinfo is not None
        assert _refers(conn) == {OLD: 1}
        assert _providers(conn) == {"tool": ["weather"]}
        assert installations.is_installed_anywhere(conn, OLD)
        declaration = declarations.get(conn, OLD)
        assert declaration is not None
        assert declaration.text == TOOL, "byte for byte"


@pytest.mark.parametrize("identifier", [OLD, NEW])
def test_D_10_any_version_counts_as_installed(database: Database, identifier: str) -> None:
    with database.write() as conn:
        first = _install(conn)
        before = generation.current(conn)
    with database.write() as conn:
        again = _install(conn, identifier=identifier)
        assert not again.created
        assert again.installation == first.installation
        assert _refers(conn) == {OLD: 1}
        assert generation.current(conn) == before


def test_a_model_is_listed_by_its_provider(database: Database) -> None:
    with database.write() as conn:
        installations.install(conn, TENANT, OLD, MODEL, source="package")
        assert _providers(conn) == {"model": ["openai"]}


def test_uninstall_takes_the_version_along_with_its_last_tenant(database: Database) -> None:
    with database.write() as conn:
        first = _install(conn).installation
        second = _install(conn, OTHER_TENANT).installation
        assert _refers(conn) == {OLD: 2}
    with database.write() as conn:
        gone = installations.uninstall(conn, TENANT, first.id)
        assert gone == installations.Uninstalled(OLD, "acme/weather", last_reference=False)
        assert _providers(conn) == {}
        assert _providers(conn, OTHER_TENANT) == {"tool": ["weather"]}
        assert declarations.get(conn, OLD) is not None
    with database.write() as conn:
        gone = installations.uninstall(conn, OTHER_TENANT, second.id)
        assert gone is not None
        assert gone.last_reference
        assert _refers(conn) == {}
        assert declarations.get(conn, OLD) is None
        assert not installations.is_installed_anywhere(conn, OLD)


def test_installing_again_needs_no_new_upload(database: Database) -> None:
    with database.write() as conn:
        installations.uninstall(conn, TENANT, _install(conn).installation.id)
        assert _install(conn).created
        assert declarations.get(conn, OLD) is not None


@pytest.mark.parametrize("of", ["unknown", "malformed", "foreign"])
def test_uninstall_of_what_is_not_there_changes_nothing(database: Database, of: str) -> None:
    with database.write() as conn:
        installation = _install(conn, OTHER_TENANT).installation
        before = generation.current(conn)
        ids = {"unknown": TENANT, "malformed": "x' OR 1=1", "foreign": installation.id}
        assert installations.uninstall(conn, TENANT, ids[of]) is None
        assert generation.current(conn) == before


def test_uninstall_tolerates_a_missing_plugin_row(database: Database) -> None:
    with database.write() as conn:
        installation = _install(conn).installation
        conn.execute(text("DELETE FROM plugins"))
        gone = installations.uninstall(conn, TENANT, installation.id)
        assert gone is not None
        assert gone.last_reference


def test_uninstall_goes_by_installations_not_by_a_wrong_counter(database: Database) -> None:
    with database.write() as conn:
        installation = _install(conn).installation
        _install(conn, OTHER_TENANT)
        conn.execute(text("UPDATE plugins SET refers = 1"))
        gone = installations.uninstall(conn, TENANT, installation.id)
        assert gone is not None
        assert not gone.last_reference


def test_upgrade_switches_the_row_and_keeps_its_identity(database: Database) -> None:
    with database.write() as conn:
        before = _install(conn).installation
        conn.execute(text("UPDATE plugin_installations SET endpoints_setups = 3"))
    with database.write() as conn:
        done = installations.upgrade(conn, TENANT, OLD, NEW, MODEL, source="marketplace")
        assert done is not None
        assert done.old_last_reference
        after = done.installation
        assert (after.id, after.created_at) == (before.id, before.created_at)
        assert (after.identifier, after.source, after.endpoints_setups) == (NEW, "marketplace", 3)
        assert after.meta == {}, "never null (D-12)"
        assert _refers(conn) == {NEW: 1}
        assert _providers(conn) == {"model": ["openai"]}
        assert declarations.get(conn, OLD) is None
        assert declarations.get(conn, NEW) is not None


def test_upgrade_leaves_the_old_version_to_others(database: Database) -> None:
    with database.write() as conn:
        _install(conn)
        _install(conn, OTHER_TENANT)
        done = installations.upgrade(conn, TENANT, OLD, NEW, MODEL, source="x", meta={"b": 2})
        assert done is not None
        assert not done.old_last_reference
        assert done.installation.meta == {"b": 2}
        assert _refers(conn) == {OLD: 1, NEW: 1}
        assert declarations.get(conn, OLD) is not None


def test_upgrade_of_what_is_not_installed_changes_nothing(database: Database) -> None:
    with database.write() as conn:
        before = generation.current(conn)
        assert installations.upgrade(conn, TENANT, OLD, NEW, MODEL, source="x") is None
        assert _refers(conn) == {}
        assert generation.current(conn) == before


def test_every_change_makes_a_new_generation(database: Database) -> None:
    seen = []
    with database.write() as conn:
        seen.append(generation.current(conn))
        declarations.put_if_absent(conn, OLD, TOOL)
        seen.append(generation.current(conn))
        installation = _install(conn).installation
        seen.append(generation.current(conn))
        installations.upgrade(conn, TENANT, OLD, NEW, MODEL, source="x")
        seen.append(generation.current(conn))
        installations.uninstall(conn, TENANT, installation.id)
        seen.append(generation.current(conn))
    assert seen == sorted(set(seen))


def test_D_14_pages_are_ordered_and_do_not_overlap(database: Database) -> None:
    with database.write() as conn:
        for number in range(7):
            _install(conn, identifier=f"acme/p{number}:0.0.1@{'a' * 64}")
        _install(conn, OTHER_TENANT)
        conn.execute(text("UPDATE plugin_installations SET created_at = '2026-01-01 00:00:00'"))
    with database.read() as conn:
        pages = [installations.page(conn, TENANT, offset, 3) for offset in (0, 3, 6, 9)]
        everything = installations.all_of_tenant(conn, TENANT)
    assert [total for _, total in pages] == [7] * 4
    assert [len(rows) for rows, _ in pages] == [3, 3, 1, 0]
    assert [row for rows, _ in pages for row in rows] == everything
    assert [row.plugin_id for row in everything] == [
        f"acme/p{number}" for number in range(6, -1, -1)
    ]


def test_lists_by_name_and_by_version(database: Database) -> None:
    with database.write() as conn:
        _install(conn)
        _install(conn, OTHER_TENANT)
        _install(conn, identifier=f"acme/clock:0.0.1@{'c' * 64}")
        names = ["acme/clock", "acme/weather", "acme/none"]
        found = installations.find_many(conn, TENANT, names)
        assert {row.plugin_id for row in found} == {"acme/clock", "acme/weather"}
        first = installations.installed_identifiers(conn, "", 1)
        assert first + installations.installed_identifiers(conn, first[0], 9) == [
            f"acme/clock:0.0.1@{'c' * 64}",
            OLD,
        ]


def test_D_13_a_broken_row_does_not_fail_the_list(database: Database) -> None:
    with database.write() as conn:
        _install(conn)
        _install(conn, identifier=f"acme/clock:0.0.1@{'c' * 64}")
        broken = (
            "UPDATE plugin_installations SET meta = '{', source = NULL, endpoints_active = NULL"
        )
        conn.execute(text(f"{broken} WHERE plugin_id = 'acme/clock'"))
        rows, _ = installations.page(conn, TENANT, 0, 10)
    assert [(row.meta, row.source) for row in rows] == [({}, ""), ({"a": 1}, "package")]


def test_D_67_a_tenant_that_is_no_uuid_is_refused(database: Database) -> None:
    with database.read() as conn, pytest.raises(BadRequest, match="not a UUID"):
        installations.find(conn, "../../x", "acme/weather")


def test_a_tenant_is_the_same_however_it_is_written(database: Database) -> None:
    with database.write() as conn:
        made = _install(conn, TENANT.upper().replace("-", ""))
        assert installations.find(conn, TENANT, "acme/weather") == made.installation


def test_many_installs_at_once_count_right(database: Database) -> None:
    tenants = [f"0198c5d2-0000-7000-8000-{number:012}" for number in range(10)]

    def install(tenant: str) -> bool:
        with database.write() as conn:
            return _install(conn, tenant).created

    jobs = [gevent.spawn(install, tenant) for tenant in tenants * 2]
    gevent.joinall(jobs, raise_error=True)
    assert sum(job.value for job in jobs) == len(tenants)
    with database.read() as conn:
        assert _refers(conn) == {OLD: len(tenants)}


def test_installs_and_uninstalls_at_once_leave_rows_that_fit(database: Database) -> None:
    tenants = [f"0198c5d2-0000-7000-8000-{number:012}" for number in range(6)]

    def change(tenant: str) -> None:
        for _ in range(5):
            with database.write() as conn:
                installation = _install(conn, tenant).installation
            gevent.sleep(0)
            with database.write() as conn:
                installations.upgrade(conn, tenant, OLD, NEW, MODEL, source="x")
            gevent.sleep(0)
            with database.write() as conn:
                installations.uninstall(conn, tenant, installation.id)
        with database.write() as conn:
            _install(conn, tenant)

    gevent.joinall([gevent.spawn(change, tenant) for tenant in tenants], raise_error=True)
    with database.read() as conn:
        assert _refers(conn) == {OLD: len(tenants)}
        assert declarations.get(conn, OLD) is not None
        assert declarations.get(conn, NEW) is None
        assert _providers(conn, tenants[0]) == {"tool": ["weather"]}
