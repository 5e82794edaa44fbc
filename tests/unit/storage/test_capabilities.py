"""Lists of providers: order, duplicates of old databases, broken rows (01 section 3.14)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from tests.unit.storage.conftest import OTHER_TENANT, TENANT
from tidegate.ids import row_id
from tidegate.storage import Database, capabilities, installations
from tidegate.storage.declared import parts_of
from tidegate.storage.tables import capabilities as tables

WEATHER = f"acme/weather:0.0.1@{'a' * 64}"
CLOCK = f"acme/clock:1.2.0@{'b' * 64}"
OPENAI = f"acme/openai:0.3.2@{'c' * 64}"
PARTS = {
    "tool": {"identity": {"name": "p"}, "tools": [], "odd": 12345678901234567890},
    "model": {"provider": "p", "models": []},
    "agent_strategy": {"identity": {"name": "p"}, "strategies": []},
    "datasource": {"identity": {"name": "p"}, "datasources": []},
    "trigger": {"identity": {"name": "p"}, "events": []},
}
META = {"version": "0.0.1", "minimum_dify_version": None}


def _declaration(kind: str, name: str = "p", **more: Any) -> str:
    part = dict(PARTS[kind])
    part["identity" if "identity" in part else "provider"] = (
        {"name": name} if "identity" in part else name
    )
    return json.dumps({kind: part, "meta": META, **more})


def _install(conn: Connection, identifier: str, declaration: str, tenant: str = TENANT) -> None:
    installations.install(conn, tenant, identifier, declaration, source="marketplace")


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_each_kind_is_listed_with_its_own_part_as_it_was_uploaded(
    database: Database, kind: str
) -> None:
    declaration = _declaration(kind)
    with database.write() as conn:
        _install(conn, WEATHER, declaration)
    with database.read() as conn:
        (found,) = capabilities.page(conn, TENANT, kind, 0, 10)
        others = [one for one in PARTS if one != kind]
        assert all(capabilities.page(conn, TENANT, one, 0, 10) == [] for one in others)
        assert capabilities.page(conn, OTHER_TENANT, kind, 0, 10) == []
    assert (found.kind, found.provider, found.plugin_id) == (kind, "p", "acme/weather")
    assert (found.identifier, found.tenant) == (WEATHER, TENANT)
    assert found.declaration.decode() in declaration, "byte for byte"
    assert json.loads(found.meta) == META


def _row(conn: Connection, kind: str, number: int, identifier: str = WEATHER) -> str:
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    values = {
        "id": str(row_id()), "created_at": when, "updated_at": when, "tenant_id": TENANT,
        "provider": f"p{number}", "plugin_unique_identifier": identifier,
        "plugin_id": identifier.split(":")[0],
    }  # fmt: skip
    conn.execute(insert(tables[kind]).values(**values))
    return str(values["id"])


def test_D_14_pages_neither_overlap_nor_leave_a_row_out(database: Database) -> None:
    with database.write() as conn:
        _install(conn, WEATHER, _declaration("tool"))
        for number in range(7):
            _row(conn, "tool", number)
    with database.read() as conn:
        pages = [capabilities.page(conn, TENANT, "tool", at, 3) for at in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 2, 0]
    names = [one.provider for page in pages for one in page]
    assert names == ["p", *(f"p{number}" for number in reversed(range(7)))]


def test_D_13_a_broken_row_is_left_out_and_logged(
    database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    with database.write() as conn:
        _install(conn, WEATHER, _declaration("tool", "good"))
        _install(conn, CLOCK, _declaration("tool", "broken"))
        _row(conn, "tool", 1, f"acme/gone:0.0.1@{'d' * 64}")
        conn.execute(
            text("UPDATE plugin_declarations SET declaration = '{' WHERE plugin_id = 'acme/clock'")
        )
    with database.read() as conn:
        assert [one.provider for one in capabilities.page(conn, TENANT, "tool", 0, 10)] == ["good"]
        assert capabilities.find(conn, TENANT, "tool", "acme/clock", "broken") is None


def test_a_provider_that_an_old_database_has_twice_is_listed_once(database: Database) -> None:
    with database.write() as conn:
        _install(conn, WEATHER, _declaration("tool"))
        conn.execute(
            text(
                "INSERT INTO tool_installations (id, created_at, updated_at, tenant_id, provider,"
                " plugin_unique_identifier, plugin_id) SELECT :id, created_at, updated_at,"
                " tenant_id, provider, plugin_unique_identifier, plugin_id FROM tool_installations"
            ),
            {"id": "ffffffff-0000-7000-8000-000000000000"},
        )
    with database.read() as conn:
        found = capabilities.page(conn, TENANT, "tool", 0, 10)
    assert [one.id for one in found] == ["ffffffff-0000-7000-8000-000000000000"]


def test_find_needs_plugin_and_provider_of_this_tenant(database: Database) -> None:
    with database.write() as conn:
        _install(conn, WEATHER, _declaration("tool", "weather"))
    with database.read() as conn:
        found = capabilities.find(conn, TENANT, "tool", "acme/weather", "weather")
        assert found is not None
        assert found.provider == "weather"
        for tenant, plugin, provider in (
            (OTHER_TENANT, "acme/weather", "weather"),
            (TENANT, "acme/clock", "weather"),
            (TENANT, "acme/weather", "clock"),
        ):
            assert capabilities.find(conn, tenant, "tool", plugin, provider) is None


def test_tools_are_looked_up_in_the_order_of_the_question(database: Database) -> None:
    with database.write() as conn:
        _install(conn, WEATHER, _declaration("tool", "weather"))
    asked = [("acme/weather", "weather"), ("acme/weather", "x"), ("x", "weather")]
    with database.read() as conn:
        assert capabilities.tool_exists(conn, TENANT, asked) == [True, False, False]
        assert capabilities.tool_exists(conn, TENANT, []) == []
        assert capabilities.tool_exists(conn, OTHER_TENANT, asked) == [False] * 3


def test_bindings_say_which_installation_serves_a_model_provider(database: Database) -> None:
    with database.write() as conn:
        _install(conn, OPENAI, _declaration("model", "openai", verified=True))
        _install(conn, CLOCK, _declaration("model", "clock", verified=False))
        _row(conn, "model", 1, f"acme/clock:0.0.1@{'e' * 64}")  # of a version left long ago
    with database.read() as conn:
        bindings = capabilities.model_bindings(conn, TENANT)
        rows = {row.plugin_id: row.id for row in installations.all_of_tenant(conn, TENANT)}
    assert [(one.provider, one.verified) for one in bindings] == [
        ("clock", False),
        ("openai", True),
    ]
    assert [one.installation_id for one in bindings] == [rows["acme/clock"], rows["acme/openai"]]
    assert {(one.runtime_type, one.source) for one in bindings} == {("local", "marketplace")}


@pytest.mark.parametrize(
    ("declaration", "category"),
    [
        (_declaration("tool", endpoint={}), "tool"),
        (_declaration("model"), "model"),
        (_declaration("agent_strategy"), "agent-strategy"),
        (_declaration("datasource"), "datasource"),
        (_declaration("trigger"), "trigger"),
        ('{"endpoint": {}, "tool": null}', "extension"),
    ],
)
def test_a_plugin_is_of_the_first_kind_that_it_has(declaration: str, category: str) -> None:
    assert parts_of(declaration).category == category
