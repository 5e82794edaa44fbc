"""The reference's tables, made or adopted, and our first own ones.

The tables are written out here once more: a migration must not change when tables.py does.
"""

from __future__ import annotations

from typing import Any

from alembic import op
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
    func,
    select,
    text,
)

from tidegate.storage.columns import Moment, RowId
from tidegate.storage.migrations.adoption import adopt

revision = "0001"
down_revision = None

_metadata = MetaData()
_OWN = ("tidegate_jobs", "tidegate_generation", "tidegate_set_aside")


def _table(name: str, *items: Any, indexed: tuple[tuple[str, Any, bool], ...] = ()) -> Table:
    own: list[Any] = []
    for column, kind, required in indexed:
        own += [Column(column, kind, nullable=not required), Index(f"idx_{name}_{column}", column)]
    return Table(
        name,
        _metadata,
        Column("id", RowId, primary_key=True),
        Column("created_at", Moment),
        Column("updated_at", Moment),
        *own,
        *items,
    )


_plugins = _table(
    "plugins",
    Column("plugin_unique_identifier", String(255)),
    Column("refers", BigInteger, server_default=text("0")),
    Column("manifest_type", String(127)),
    Column("remote_declaration", Text),
    Column("source", String(63), server_default=text("''")),
    Index("idx_plugin_unique_identifier", "plugin_unique_identifier", unique=True),
    indexed=(("plugin_id", String(255), False), ("install_type", String(127), False)),
)
_installations = _table(
    "plugin_installations",
    Column("runtime_type", String(127)),
    Column("endpoints_setups", BigInteger),
    Column("endpoints_active", BigInteger),
    Column("source", String(63)),
    Column("meta", Text),
    Index("idx_tenant_plugin", "tenant_id", "plugin_id", unique=True),
    indexed=(
        ("tenant_id", RowId, False),
        ("plugin_id", String(255), False),
        ("plugin_unique_identifier", String(255), False),
    ),
)
_table(
    "plugin_declarations",
    Column("plugin_unique_identifier", String(255)),
    Column("declaration", Text),
    UniqueConstraint(
        "plugin_unique_identifier", name="uni_plugin_declarations_plugin_unique_identifier"
    ),
    indexed=(("plugin_id", String(255), False),),
)
_table(
    "endpoints",
    Column("name", String(127), server_default=text("'default'")),
    Column("hook_id", String(127)),
    Column("expired_at", Moment),
    Column("enabled", Boolean),
    Column("settings", Text),
    UniqueConstraint("hook_id", name="uni_endpoints_hook_id"),
    indexed=(
        ("tenant_id", String(64), False),
        ("user_id", String(64), False),
        ("plugin_id", String(255), False),
    ),
)
_table(
    "serverless_runtimes",
    Column("plugin_unique_identifier", String(255)),
    Column("function_url", String(255)),
    Column("function_name", String(127)),
    Column("type", String(127)),
    UniqueConstraint(
        "plugin_unique_identifier", name="uni_serverless_runtimes_plugin_unique_identifier"
    ),
    indexed=(("checksum", String(127), False),),
)
for _kind in ("tool", "ai_model", "agent_strategy", "datasource", "trigger"):
    _table(
        f"{_kind}_installations",
        indexed=(
            ("tenant_id", RowId, True),
            ("provider", String(127), True),
            ("plugin_unique_identifier", String(255), False),
            ("plugin_id", String(255), False),
        ),
    )
_table(
    "install_tasks",
    Column("total_plugins", BigInteger, nullable=False),
    Column("completed_plugins", BigInteger, nullable=False),
    Column("plugins", Text),
    indexed=(("status", String(50), True), ("tenant_id", RowId, True)),
)
_table(
    "tenant_storages",
    Column("size", BigInteger, nullable=False),
    indexed=(("tenant_id", String(255), True), ("plugin_id", String(255), True)),
)
_table(
    "plugin_readme_records",
    Column("language", String(10), nullable=False),
    Column("content", Text, nullable=False),
    indexed=(("plugin_unique_identifier", String(255), True),),
)
Table(
    "tidegate_jobs",
    _metadata,
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
_generation = Table(
    "tidegate_generation",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)
_set_aside = Table(
    "tidegate_set_aside",
    _metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("table_name", String(127), nullable=False),
    Column("reason", Text, nullable=False),
    Column("row", Text, nullable=False),
)


def upgrade() -> None:
    """Expand: an empty database, or a reference daemon's of any age."""
    conn = op.get_bind()
    adopt(conn, _metadata, _set_aside)
    conn.execute(_generation.insert().values(id=1, value=1))
    moved = select(_set_aside.c.id).where(_set_aside.c.table_name == "plugins").limit(1)
    if conn.execute(moved).first() is not None:
        _recount()


def downgrade() -> None:
    """Our own tables go; the reference's stay as they are."""
    for name in _OWN:
        op.drop_table(name)


def _recount() -> None:
    """Merged rows of ``plugins`` had a counter each: count what is really installed."""
    identifier = _installations.c.plugin_unique_identifier
    count = (
        select(func.count())
        .where(identifier == _plugins.c.plugin_unique_identifier)
        .scalar_subquery()
    )
    op.get_bind().execute(_plugins.update().values(refers=count))
