"""Where other hosts reach the one that holds a debugged plugin's connection."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String

revision = "0006"
down_revision = "0005"

_SESSIONS = "tidegate_debug_sessions"


def upgrade() -> None:
    """One column of our own; null in rows of a host that does not write it yet."""
    op.add_column(_SESSIONS, Column("address", String(255)))


def downgrade() -> None:
    """It goes."""
    op.drop_column(_SESSIONS, "address")
