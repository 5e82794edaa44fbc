"""Every table: the reference's thirteen under its names (spec/http/02 section 1), then our own.

The reference's tables keep its columns, types and index names, so that its database works here
and ours works there. Own tables begin with ``tidegate_``. How a database gets here, also from a
reference's, is the migrations' business; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

from tidegate.storage.columns import Moment, RowId

metadata = MetaData()


def _table(name: str, *items: SchemaItem) -> Table:
    """A table with the three columns that all of the reference's have."""
    return Table(
        name,
        metadata,
        Column("id", RowId, primary_key=True),
        Column("created_at", Moment),
        Column("updated_at", Moment),
        *items,
    )


def _indexed(table: str, column: str, kind: Any, *, nullable: bool = True) -> list[SchemaItem]:
    """A column and its own index, named as the reference names them."""
    return [Column(column, kind, nullable=nullable), Index(f"idx_{table}_{column}", column)]


plugins = _table(
    "plugins",
    Column("plugin_unique_identifier", String(255)),
    Column("refers", BigInteger, server_default=text("0")),
    Column("manifest_type", String(127)),
    Column("remote_declaration", Text),
    Column("source", String(63), server_default=text("''")),
    Index("idx_plugin_unique_identifier", "plugin_unique_identifier", unique=True),
    *_indexed("plugins", "plugin_id", String(255)),
    *_indexed("plugins", "install_type", String(127)),
)

plugin_installations = _table(
    "plugin_installations",
    Column("runtime_type", String(127)),
    Column("endpoints_setups", BigInteger),
    Column("endpoints_active", BigInteger),
    Column("source", String(63)),
    Column("meta", Text),
    *_indexed("plugin_installations", "tenant_id", RowId),
    *_indexed("plugin_installations", "plugin_id", String(255)),
    *_indexed("plugin_installations", "plugin_unique_identifier", String(255)),
    Index("idx_tenant_plugin", "tenant_id", "plugin_id", unique=True),
)

plugin_declarations = _table(
    "plugin_declarations",
    Column("plugin_unique_identifier", String(255)),
    Column("declaration", Text),
    UniqueConstraint(
        "plugin_unique_identifier", name="uni_plugin_declarations_plugin_unique_identifier"
    ),
    *_indexed("plugin_declarations", "plugin_id", String(255)),
)

endpoints = _table(
    "endpoints",
    Column("name", String(127), server_default=text("'default'")),
    Column("hook_id", String(127)),
    Column("expired_at", Moment),
    Column("enabled", Boolean),
    Column("settings", Text),
    UniqueConstraint("hook_id", name="uni_endpoints_hook_id"),
    *_indexed("endpoints", "tenant_id", String(64)),
    *_indexed("endpoints", "user_id", String(64)),
    # 64 wide in the reference, where a long author/name does not fit (D-60)
    *_indexed("endpoints", "plugin_id", String(255)),
)

serverless_runtimes = _table(
    "serverless_runtimes",
    Column("plugin_unique_identifier", String(255)),
    Column("function_url", String(255)),
    Column("function_name", String(127)),
    Column("type", String(127)),
    UniqueConstraint(
        "plugin_unique_identifier", name="uni_serverless_runtimes_plugin_unique_identifier"
    ),
    *_indexed("serverless_runtimes", "checksum", String(127)),
)


def _capability(name: str) -> Table:
    return _table(
        name,
        *_indexed(name, "tenant_id", RowId, nullable=False),
        *_indexed(name, "provider", String(127), nullable=False),
        *_indexed(name, "plugin_unique_identifier", String(255)),
        *_indexed(name, "plugin_id", String(255)),
    )


capabilities = {
    "tool": _capability("tool_installations"),
    "model": _capability("ai_model_installations"),
    "agent_strategy": _capability("agent_strategy_installations"),
    "datasource": _capability("datasource_installations"),
    "trigger": _capability("trigger_installations"),
}
"""Key in a declaration -> table with one row per tenant and provider."""

install_tasks = _table(
    "install_tasks",
    *_indexed("install_tasks", "status", String(50), nullable=False),
    *_indexed("install_tasks", "tenant_id", RowId, nullable=False),  # index: ours
    Column("total_plugins", BigInteger, nullable=False),
    Column("completed_plugins", BigInteger, nullable=False),
    Column("plugins", Text),
)

tenant_storages = _table(
    "tenant_storages",
    *_indexed("tenant_storages", "tenant_id", String(255), nullable=False),
    *_indexed("tenant_storages", "plugin_id", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    # ours: the reference makes two rows when two first writes meet (D-42)
    Index("idx_tenant_storages_tenant_plugin", "tenant_id", "plugin_id", unique=True),
)

plugin_readme_records = _table(
    "plugin_readme_records",
    *_indexed("plugin_readme_records", "plugin_unique_identifier", String(255), nullable=False),
    Column("language", String(10), nullable=False),
    Column("content", Text, nullable=False),
    # ours: the reference makes two rows when two first readers meet
    Index(
        "idx_plugin_readme_records_identifier_language",
        "plugin_unique_identifier",
        "language",
        unique=True,
    ),
)

# --------------------------------------------------------------------------- our own

jobs = Table(
    "tidegate_jobs",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("kind", String(63), nullable=False),
    Column("key", String(512), nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(63), nullable=False),
    Column("note", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("owner", String(255)),
    # milliseconds of wall time; two numbers, so that a clock set back is noticed (job_rows.py)
    Column("lease_from", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("finished_at", Moment),
    Column("ok", Boolean),
    Index(
        "idx_tidegate_jobs_open",
        "kind",
        "key",
        unique=True,
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index("idx_tidegate_jobs_finished_at", "finished_at"),
)

generation = Table(
    "tidegate_generation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)

credentials = Table(
    "tidegate_credentials",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("tenant_id", RowId, nullable=False),
    Column("provider", String(255), nullable=False),
    Column("model_type", String(63), nullable=False),
    Column("model", String(255), nullable=False),
    Column("sealed", Text, nullable=False),
    Index(
        "idx_tidegate_credentials_place",
        "tenant_id", "provider", "model_type", "model",
        unique=True,
    ),
)  # fmt: skip
"""For TIDEGATE_BACKCALLS=self; ``sealed`` is encrypted JSON (backcalls/vault.py)."""

debug_keys = Table(
    "tidegate_debug_keys",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("tenant_id", RowId, nullable=False),
    Column("key", String(63), nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("idx_tidegate_debug_keys_tenant_id", "tenant_id", unique=True),
    Index("idx_tidegate_debug_keys_key", "key", unique=True),
)

debug_sessions = Table(
    "tidegate_debug_sessions",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("tenant_id", RowId, nullable=False),
    Column("plugin_id", String(255), nullable=False),
    Column("identifier", String(255), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("address", String(255)),
    # the installation that it stands in front of, and how its row was; null when there is none
    Column("shadowed_identifier", String(255)),
    Column("shadowed", Text),
    Index("idx_tidegate_debug_sessions_plugin", "tenant_id", "plugin_id", unique=True),
    Index("idx_tidegate_debug_sessions_owner", "owner"),
    Index("idx_tidegate_debug_sessions_shadowed", "shadowed_identifier"),
)
"""Plugins that are connected for debugging; ``owner`` is the host that holds the connection, and
``address`` that of its link."""

ticks = Table(
    "tidegate_ticks",
    metadata,
    Column("id", String(127), primary_key=True),
    Column("at", BigInteger, nullable=False),
)
"""When each entry of the schedule last went out, in milliseconds of wall time."""

set_aside = Table(
    "tidegate_set_aside",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("table_name", String(127), nullable=False),
    Column("reason", Text, nullable=False),
    Column("row", Text, nullable=False),
)
"""Rows that a migration had to take out of their table, whole, as JSON: nothing is thrown away."""
