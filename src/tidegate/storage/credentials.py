"""Credentials that the operator gave for TIDEGATE_BACKCALLS=self: sealed text, by provider.

A row is for a provider, or for one model of it (``model_type`` and ``model`` not empty). Nothing
here can read them: they are sealed by ``backcalls.vault``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

from sqlalchemy import Connection, Row, select
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import row_id
from tidegate.storage.columns import tenant_key
from tidegate.storage.dialects import insert
from tidegate.storage.tables import credentials as table


@final
@dataclass(frozen=True, slots=True)
class Credentials:
    """One row. ``provider`` is ``author/name/provider``."""

    tenant: str
    provider: str
    model_type: str
    model: str
    sealed: str
    updated_at: datetime


def put(
    conn: Connection, tenant: str, provider: str, model_type: str, model: str, sealed: str
) -> None:
    """Keep, or replace as a whole."""
    now = SYSTEM_CLOCK.now()
    statement = insert(conn, table).values(
        id=str(row_id()),
        created_at=now,
        updated_at=now,
        tenant_id=tenant_key(tenant),
        provider=provider,
        model_type=model_type,
        model=model,
        sealed=sealed,
    )
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.tenant_id, table.c.provider, table.c.model_type, table.c.model],
            set_={"sealed": sealed, "updated_at": now},
        )
    )


def find(
    conn: Connection, tenant: str, provider: str, model_type: str = "", model: str = ""
) -> Credentials | None:
    """Those of the model when it has its own, else the provider's."""
    rows = {(one.model_type, one.model): one for one in of_provider(conn, tenant, provider)}
    return rows.get((model_type, model)) or rows.get(("", ""))


def of_provider(conn: Connection, tenant: str, provider: str) -> list[Credentials]:
    """Every row of one provider."""
    return _all(conn, tenant, table.c.provider == provider)


def of_tenant(conn: Connection, tenant: str) -> list[Credentials]:
    """Every row of a tenant, by provider and model: operators set few."""
    return _all(conn, tenant)


def remove(conn: Connection, tenant: str, provider: str, model_type: str, model: str) -> bool:
    """Forget one row; False when there is none."""
    gone = conn.execute(
        delete_from(table).where(
            table.c.tenant_id == tenant_key(tenant),
            table.c.provider == provider,
            table.c.model_type == model_type,
            table.c.model == model,
        )
    )
    return gone.rowcount > 0


def _all(conn: Connection, tenant: str, *conditions: Any) -> list[Credentials]:
    order = (table.c.provider, table.c.model_type, table.c.model)
    statement = select(table).where(table.c.tenant_id == tenant_key(tenant), *conditions)
    return [_row(row) for row in conn.execute(statement.order_by(*order))]


def _row(row: Row[Any]) -> Credentials:
    return Credentials(
        tenant=row.tenant_id,
        provider=row.provider,
        model_type=row.model_type,
        model=row.model,
        sealed=row.sealed,
        updated_at=row.updated_at,
    )
