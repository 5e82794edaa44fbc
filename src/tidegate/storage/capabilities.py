"""Which providers an installation offers: one row per kind in its declaration (02 section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, insert
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage.tables import capabilities


def replace(conn: Connection, tenant: str, identifier: str, declaration: str) -> None:
    """Drop what the tenant's installation offered, record what ``declaration`` offers."""
    plugin_id = plugin_id_of(identifier)
    drop(conn, tenant, plugin_id)
    now = SYSTEM_CLOCK.now()
    for kind, provider in providers(msgspec.json.decode(declaration)).items():
        row = {
            "id": str(row_id()),
            "created_at": now,
            "updated_at": now,
            "tenant_id": tenant,
            "provider": provider,
            "plugin_unique_identifier": identifier,
            "plugin_id": plugin_id,
        }
        conn.execute(insert(capabilities[kind]).values(**row))


def drop(conn: Connection, tenant: str, plugin_id: str) -> None:
    """Delete the rows of every kind, duplicates of older daemons among them."""
    for table in capabilities.values():
        conn.execute(
            delete_from(table).where(table.c.tenant_id == tenant, table.c.plugin_id == plugin_id)
        )


def providers(declaration: Mapping[str, Any]) -> dict[str, str]:
    """Kind -> provider name. Models call it ``provider``, all others ``identity.name``."""
    found = {}
    for kind in capabilities:
        part = declaration.get(kind)
        if isinstance(part, Mapping):
            name = part.get("provider") if kind == "model" else _identity_name(part)
            found[kind] = str(name or "")
    return found


def _identity_name(part: Mapping[str, Any]) -> Any:
    identity = part.get("identity")
    return identity.get("name") if isinstance(identity, Mapping) else None
