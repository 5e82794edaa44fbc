"""One row of accounting per tenant and plugin; credentials of the operator.

The reference makes two rows when two first writes meet (D-42), and counts on in both. The oldest
stays with the largest count, the others are set aside.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    MetaData,
    String,
    Table,
    Text,
    func,
    inspect,
    select,
)

from tidegate.storage.columns import Moment, RowId
from tidegate.storage.migrations.adoption import move_duplicates

revision = "0002"
down_revision = "0001"

_KEY = ("tenant_id", "plugin_id")
_INDEX = "idx_tenant_storages_tenant_plugin"
_metadata = MetaData()
_storages = Table(
    "tenant_storages",
    _metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment),
    Column("tenant_id", String(255)),
    Column("plugin_id", String(255)),
    Column("size", BigInteger),
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
    """Merge what is there twice, then forbid it; a table for credentials."""
    conn = op.get_bind()
    tenant, plugin = (_storages.c[name] for name in _KEY)
    largest = func.max(_storages.c.size).label("size")
    twice = select(tenant, plugin, largest).group_by(tenant, plugin).having(func.count() > 1)
    for row in conn.execute(twice).all():
        same = (tenant == row.tenant_id, plugin == row.plugin_id)
        conn.execute(_storages.update().where(*same).values(size=row.size))
    move_duplicates(conn, _storages, _KEY, _set_aside)
    if _INDEX not in {one["name"] for one in inspect(conn).get_indexes("tenant_storages")}:
        op.create_index(_INDEX, "tenant_storages", list(_KEY), unique=True)
    op.create_table(
        "tidegate_credentials",
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


def downgrade() -> None:
    """The table and the index go; rows that were set aside stay there."""
    op.drop_table("tidegate_credentials")
    op.drop_index(_INDEX, "tenant_storages")
