"""Keys for debugging, and the plugins that are connected for it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Index, String, Text

from tidegate.storage.columns import Moment, RowId

revision = "0004"
down_revision = "0003"

_KEYS = "tidegate_debug_keys"
_SESSIONS = "tidegate_debug_sessions"


def upgrade() -> None:
    """Two tables of our own."""
    op.create_table(
        _KEYS,
        *_row(),
        Column("key", String(63), nullable=False),
        Column("expires_at", Moment, nullable=False),
        Index("idx_tidegate_debug_keys_tenant_id", "tenant_id", unique=True),
        Index("idx_tidegate_debug_keys_key", "key", unique=True),
    )
    op.create_table(
        _SESSIONS,
        *_row(),
        Column("plugin_id", String(255), nullable=False),
        Column("identifier", String(255), nullable=False),
        Column("owner", String(255), nullable=False),
        Column("shadowed_identifier", String(255)),
        Column("shadowed", Text),
        Index("idx_tidegate_debug_sessions_plugin", "tenant_id", "plugin_id", unique=True),
        Index("idx_tidegate_debug_sessions_owner", "owner"),
        Index("idx_tidegate_debug_sessions_shadowed", "shadowed_identifier"),
    )


def downgrade() -> None:
    """Both tables go."""
    op.drop_table(_SESSIONS)
    op.drop_table(_KEYS)


def _row() -> list[Column[object]]:
    return [
        Column("id", RowId, primary_key=True),
        Column("created_at", Moment, nullable=False),
        Column("updated_at", Moment, nullable=False),
        Column("tenant_id", RowId, nullable=False),
    ]
