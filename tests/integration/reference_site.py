"""What a reference daemon leaves behind: its PostgreSQL database and its storage folder.

The tables are those of spec/http/02 section 1, aged as section 1.5 says: columns that its models
lost (``declaration``, NOT NULL), no unique index on ``plugins``, rows twice, ``meta`` null, a
narrow ``endpoints.plugin_id``, ``install_tasks.status`` as text.
"""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from tests.servers import PostgresServer
from tidegate.ids import PluginIdentifier
from tidegate.packages import Package, open_package

_TENANT_TABLE = (
    "tenant_id uuid NOT NULL, provider varchar(127) NOT NULL,"
    " plugin_unique_identifier varchar(255), plugin_id varchar(255)"
)
_TABLES = {
    "plugins": "plugin_unique_identifier varchar(255), plugin_id varchar(255),"
    " refers bigint DEFAULT 0, install_type varchar(127), manifest_type varchar(127),"
    " remote_declaration text, source varchar(63) DEFAULT '', declaration text NOT NULL",
    "plugin_installations": "tenant_id uuid, plugin_id varchar(255),"
    " plugin_unique_identifier varchar(255), runtime_type varchar(127),"
    " endpoints_setups bigint, endpoints_active bigint, source varchar(63), meta text",
    "plugin_declarations": "plugin_unique_identifier varchar(255)"
    " CONSTRAINT uni_plugin_declarations_plugin_unique_identifier UNIQUE,"
    " plugin_id varchar(255), declaration text",
    "endpoints": "name varchar(127) DEFAULT 'default',"
    " hook_id varchar(127) CONSTRAINT uni_endpoints_hook_id UNIQUE, tenant_id varchar(64),"
    " user_id varchar(64), plugin_id varchar(64), expired_at timestamptz, enabled boolean,"
    " settings text",
    "serverless_runtimes": "plugin_unique_identifier varchar(255)"
    " CONSTRAINT uni_serverless_runtimes_plugin_unique_identifier UNIQUE,"
    " function_url varchar(255), function_name varchar(127), type varchar(127),"
    " checksum varchar(127), declaration text NOT NULL",
    "tool_installations": f"{_TENANT_TABLE}, declaration text NOT NULL",
    "ai_model_installations": f"{_TENANT_TABLE}, declaration text NOT NULL",
    "agent_strategy_installations": f"{_TENANT_TABLE}, declaration text NOT NULL",
    "datasource_installations": _TENANT_TABLE,
    "trigger_installations": f"{_TENANT_TABLE}, declaration text NOT NULL",
    "install_tasks": "status text NOT NULL, tenant_id uuid NOT NULL,"
    " total_plugins bigint NOT NULL, completed_plugins bigint NOT NULL, plugins text",
    "tenant_storages": "tenant_id varchar(255) NOT NULL, plugin_id varchar(255) NOT NULL,"
    " size bigint NOT NULL",
    "plugin_readme_records": "plugin_unique_identifier varchar(255) NOT NULL,"
    " language varchar(10) NOT NULL, content text NOT NULL",
}
_INDEXES = (
    "CREATE INDEX idx_plugins_plugin_unique_identifier ON plugins (plugin_unique_identifier)",
    "CREATE INDEX idx_plugins_plugin_id ON plugins (plugin_id)",
    "CREATE INDEX idx_plugins_install_type ON plugins (install_type)",
    "CREATE UNIQUE INDEX idx_tenant_plugin ON plugin_installations (tenant_id, plugin_id)",
    "CREATE INDEX idx_endpoints_tenant_id ON endpoints (tenant_id)",
    "CREATE INDEX idx_install_tasks_status ON install_tasks (status)",
)


@dataclass
class ReferenceSite:
    """A database and a folder to fill, then to take over."""

    server: PostgresServer
    database: str
    storage: Path
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TABLES, 0))

    def make_tables(self) -> None:
        """The thirteen tables, empty."""
        common = "id uuid PRIMARY KEY, created_at timestamptz, updated_at timestamptz"
        for name, columns in _TABLES.items():
            self.execute(f"CREATE TABLE {name} ({common}, {columns})")
        for statement in _INDEXES:
            self.execute(statement)

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """One statement; what it returned."""
        arguments = {
            "host": self.server.host, "port": self.server.port, "user": self.server.user,
            "dbname": self.database,
        }  # fmt: skip
        if self.server.password:
            arguments["password"] = self.server.password
        with (
            closing(psycopg2.connect(**arguments)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def row(self, table: str, **values: Any) -> str:
        """Add a row; its id. Legacy columns are filled by themselves."""
        self.rows[table] += 1
        when = f"2025-03-01 12:00:{self.rows[table]:02}+00"
        values = {"id": str(uuid.uuid4()), "created_at": when, "updated_at": when, **values}
        if "declaration text NOT NULL" in _TABLES[table]:
            values.setdefault("declaration", "{}")
        marks = ", ".join(["%s"] * len(values))
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"  # noqa: S608
        self.execute(statement, tuple(values.values()))
        return str(values["id"])

    def count(self, table: str) -> int:
        """Rows of a table now."""
        return int(self.execute(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608

    def put(self, key: str, data: bytes) -> None:
        """A file of the storage folder."""
        path = self.storage / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def install(self, data: bytes, tenants: list[str], *, uploaded: bool = True) -> Package:
        """What an installed package is: files, rows, a working folder with an environment.

        ``uploaded``: its upload is still there, beside the installed copy.
        """
        package = open_package(data, limit=1 << 28)
        identifier = str(package.identifier)
        declaration, icons = package.declaration_with_assets(False)
        if uploaded:
            self.put(f"plugin_packages/{identifier}", data)
        self.put(f"plugin/{identifier}", data)
        for name, icon in icons.items():
            self.put(f"assets/{name}", icon)
        self._extract(package)
        self._rows_of(package.identifier, json.dumps(declaration), tenants)
        return package

    def _extract(self, package: Package) -> None:
        folder = self.storage / "cwd" / package.identifier.folder
        folder.mkdir(parents=True)
        package.extract_to(folder)
        marker = folder / ".venv/dify/plugin.json"
        marker.parent.mkdir(parents=True)
        marker.write_text('{"timestamp":1740830400}')
        (folder / ".venv/bin").mkdir()
        (folder / ".venv/bin/python").symlink_to("/gone/with/the/old/image/python3.12")

    def _rows_of(self, one: PluginIdentifier, declaration: str, tenants: list[str]) -> None:
        names = {"plugin_unique_identifier": str(one), "plugin_id": one.plugin_id}
        self.row(
            "plugins", **names, refers=len(tenants), install_type="local", manifest_type="",
            remote_declaration="{}", source="marketplace",
        )  # fmt: skip
        self.row("plugin_declarations", **names, declaration=declaration)
        kind, provider = "tool_installations", json.loads(declaration)["tool"]["identity"]["name"]
        for tenant in tenants:
            self.row(
                "plugin_installations", **names, tenant_id=tenant, runtime_type="local",
                endpoints_setups=0, endpoints_active=0, source="marketplace", meta="null",
            )  # fmt: skip
            self.row(kind, **names, tenant_id=tenant, provider=provider)
