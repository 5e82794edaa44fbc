"""An old reference daemon's database, with everything that its age left behind.

Spec/http/02 section 1.5: a ``declaration`` column that models no longer have and that is NOT
NULL, no unique index on ``plugins``, duplicated rows there and among the capabilities, ``meta``
null, a narrow ``endpoints.plugin_id``, ``install_tasks.status`` as text, columns that came later.
"""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, text

TENANT = "0198c5d2-0000-7000-8000-00000000000a"
WEATHER = f"acme/weather:0.0.1@{'a' * 64}"
CLOCK = f"acme/clock:0.0.1@{'b' * 64}"

_COMMON = "id {uuid} PRIMARY KEY, created_at {time}, updated_at {time}"
_TABLES = {
    "plugins": "plugin_unique_identifier varchar(255), plugin_id varchar(255),"
    " refers bigint DEFAULT 0, install_type varchar(127), manifest_type varchar(127),"
    " declaration text NOT NULL",
    "plugin_installations": "tenant_id {uuid}, plugin_id varchar(255),"
    " plugin_unique_identifier varchar(255), runtime_type varchar(127),"
    " endpoints_setups bigint, endpoints_active bigint, source varchar(63), meta text",
    "endpoints": "hook_id varchar(127) UNIQUE, tenant_id varchar(64), user_id varchar(64),"
    " plugin_id varchar(64), expired_at {time}, enabled boolean, settings text",
    "tool_installations": "tenant_id {uuid} NOT NULL, provider varchar(127) NOT NULL,"
    " plugin_unique_identifier varchar(255), plugin_id varchar(255), declaration text NOT NULL",
    "install_tasks": "status text NOT NULL, tenant_id {uuid} NOT NULL,"
    " total_plugins bigint NOT NULL, completed_plugins bigint NOT NULL, plugins text",
}
_INDEXES = (
    "CREATE INDEX idx_plugins_plugin_unique_identifier ON plugins (plugin_unique_identifier)",
    "CREATE INDEX idx_plugins_plugin_id ON plugins (plugin_id)",
    "CREATE UNIQUE INDEX idx_tenant_plugin ON plugin_installations (tenant_id, plugin_id)",
    "CREATE INDEX idx_tool_installations_provider ON tool_installations (provider)",
)


def create(conn: Connection) -> dict[str, int]:
    """Make the tables and rows; how many rows each table has."""
    kinds = {"uuid": "char(36)", "time": "datetime"}
    if conn.dialect.name == "postgresql":
        kinds = {"uuid": "uuid", "time": "timestamptz"}
    for name, columns in _TABLES.items():
        columns = f"{_COMMON}, {columns}".format(**kinds)
        conn.execute(text(f"CREATE TABLE {name} ({columns})"))
    for statement in _INDEXES:
        conn.execute(text(statement))
    _fill(conn)
    return {name: count(conn, name) for name in _TABLES}


def count(conn: Connection, table: str) -> int:
    """Rows of a table."""
    return int(conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608


def _fill(conn: Connection) -> None:
    plugin = {"plugin_id": "acme/weather", "install_type": "local", "declaration": "{}"}
    _row(conn, "plugins", 1, plugin_unique_identifier=WEATHER, refers=1, **plugin)
    _row(conn, "plugins", 2, plugin_unique_identifier=WEATHER, refers=2, **plugin)
    clock = {**plugin, "plugin_id": "acme/clock"}
    _row(conn, "plugins", 3, plugin_unique_identifier=CLOCK, refers=1, **clock)
    for number, (identifier, meta) in enumerate([(WEATHER, None), (CLOCK, "null")]):
        _row(
            conn, "plugin_installations", number, tenant_id=TENANT, runtime_type="local",
            plugin_id=identifier.split(":")[0], plugin_unique_identifier=identifier,
            endpoints_setups=1, endpoints_active=1, source="marketplace", meta=meta,
        )  # fmt: skip
    for number in range(2):  # the same capability twice
        _row(
            conn, "tool_installations", number, tenant_id=TENANT, provider="weather",
            plugin_unique_identifier=WEATHER, plugin_id="acme/weather", declaration="{}",
        )  # fmt: skip
    _row(
        conn, "endpoints", 1, hook_id="hook", tenant_id=TENANT, user_id="u", settings="{}",
        plugin_id="acme/weather", enabled=True,
    )  # fmt: skip
    _row(
        conn, "install_tasks", 1, status="failed", tenant_id=TENANT, total_plugins=1,
        completed_plugins=0, plugins='[{"plugin_unique_identifier":"' + WEATHER + '"}]',
    )  # fmt: skip


def _row(conn: Connection, table: str, number: int, **values: object) -> None:
    when = f"2025-03-01 12:00:{number:02}.000000"
    values = {"id": str(uuid.uuid4()), "created_at": when, "updated_at": when, **values}
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
    conn.execute(text(statement), values)
