"""How much a plugin stores for a tenant: table ``tenant_storages``, one row per pair.

The row is changed in one statement that checks the limit, so that no two writers can both take
the last byte; whoever takes room before the bytes are written gives it back when they are not.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, case, select

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import row_id
from tidegate.storage.columns import tenant_key
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.tables import tenant_storages as table


def used(conn: Connection, tenant: str, plugin_id: str) -> int:
    """Bytes that are accounted for."""
    size = conn.execute(select(table.c.size).where(*_of(tenant, plugin_id))).scalar()
    return int(size or 0)


def take(conn: Connection, tenant: str, plugin_id: str, growth: int, limit: int) -> bool:
    """Account for ``growth`` bytes more; False, and nothing changes, when that passes ``limit``."""
    now = SYSTEM_CLOCK.now()
    new = {
        "id": str(row_id()),
        "created_at": now,
        "updated_at": now,
        "tenant_id": tenant_key(tenant),
        "plugin_id": plugin_id,
        "size": 0,
    }
    # So that there is a row to lock: two first writes would otherwise both find none (D-42).
    insert_or_skip(conn, table, new)
    taken = conn.execute(
        table.update()
        # Limit and change in one statement: whoever read the size before could not know what
        # another took meanwhile.
        .where(*_of(tenant, plugin_id), table.c.size + growth <= limit)
        .values(size=table.c.size + growth, updated_at=now)
    )
    return taken.rowcount > 0


def give_back(conn: Connection, tenant: str, plugin_id: str, size: int) -> None:
    """Account for ``size`` bytes less."""
    left = table.c.size - size
    conn.execute(
        table.update()
        .where(*_of(tenant, plugin_id))
        # Older daemons left wrong sizes; a negative one would be room for ever.
        .values(size=case((left > 0, left), else_=0), updated_at=SYSTEM_CLOCK.now())
    )


def correct(conn: Connection, tenant: str, plugin_id: str, size: int) -> None:
    """Set what was counted anew, if it is less than what the row says."""
    conn.execute(
        table.update()
        # Downwards only: bytes that are on their way are accounted for and not in the store yet.
        .where(*_of(tenant, plugin_id), table.c.size > size)
        .values(size=size, updated_at=SYSTEM_CLOCK.now())
    )


def _of(tenant: str, plugin_id: str) -> tuple[ColumnElement[bool], ...]:
    return (table.c.tenant_id == tenant_key(tenant), table.c.plugin_id == plugin_id)
