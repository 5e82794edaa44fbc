"""Debugging keys: one per tenant, good for two hours after it was last asked for.

Kept as rows, so that they work without Redis and outlive a restart of any role.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, select, update

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import row_id
from tidegate.storage.columns import tenant_key
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.tables import debug_keys as table

LIFETIME: Final = timedelta(minutes=120)


def fetch(conn: Connection, tenant: str) -> str:
    """The tenant's key, good for two hours from now; a new one when the last has run out.

    Called by the door, in a write transaction. BadRequest when the tenant is no UUID.
    """
    tenant = tenant_key(tenant)
    now = SYSTEM_CLOCK.now()
    fresh = {"key": str(uuid.uuid4()), "expires_at": now + LIFETIME, "updated_at": now}
    row = {"id": str(row_id()), "created_at": now, "tenant_id": tenant, **fresh}
    # Insert first, look afterwards: two that ask at once for a first key must get the same one.
    if insert_or_skip(conn, table, row):
        return str(fresh["key"])
    found = conn.execute(select(table).where(table.c.tenant_id == tenant).with_for_update()).one()
    # The key stays while it is asked for: a developer's `.env` must not become stale under the
    # hands of whoever opens Dify's page again.
    if found.expires_at > now:
        fresh["key"] = found.key
    conn.execute(update(table).where(table.c.tenant_id == tenant).values(**fresh))
    return str(fresh["key"])


def tenant_of(conn: Connection, key: str) -> str | None:
    """Whose key this is; None when it is nobody's, or has run out. Called by the host."""
    statement = select(table.c.tenant_id).where(
        table.c.key == key, table.c.expires_at > SYSTEM_CLOCK.now()
    )
    found = conn.execute(statement).scalar_one_or_none()
    return None if found is None else str(found)
