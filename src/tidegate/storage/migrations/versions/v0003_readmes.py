"""One readme per version and language.

The reference looks and then inserts, so two readers at once leave two rows: the oldest stays,
the others are set aside.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, MetaData, String, Table, Text, inspect

from tidegate.storage.columns import Moment, RowId
from tidegate.storage.migrations.adoption import move_duplicates

revision = "0003"
down_revision = "0002"

_KEY = ("plugin_unique_identifier", "language")
_INDEX = "idx_plugin_readme_records_identifier_language"
_metadata = MetaData()
_readmes = Table(
    "plugin_readme_records",
    _metadata,
    Column("id", RowId, primary_key=True),
    Column("created_at", Moment),
    Column("plugin_unique_identifier", String(255)),
    Column("language", String(10)),
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
    """Set aside what is there twice, then forbid it."""
    conn = op.get_bind()
    move_duplicates(conn, _readmes, _KEY, _set_aside)
    if _INDEX not in {one["name"] for one in inspect(conn).get_indexes(_readmes.name)}:
        op.create_index(_INDEX, _readmes.name, list(_KEY), unique=True)


def downgrade() -> None:
    """The index goes; rows that were set aside stay there."""
    op.drop_index(_INDEX, _readmes.name)
