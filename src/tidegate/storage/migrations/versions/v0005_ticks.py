"""When each tick of the schedule last went out, so that two beats are as good as one."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "0005"
down_revision = "0004"

_TICKS = "tidegate_ticks"


def upgrade() -> None:
    """One table of our own."""
    op.create_table(
        _TICKS,
        Column("id", String(127), primary_key=True),
        Column("at", BigInteger, nullable=False),
    )


def downgrade() -> None:
    """It goes."""
    op.drop_table(_TICKS)
