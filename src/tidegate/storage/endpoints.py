"""Endpoints: hooks under which a plugin answers HTTP, per tenant (spec/http/05 section 1).

Rows are locked as everywhere: the installation first, then the endpoint, then the generation.
The two counters of an installation are counted anew in each of these transactions, so they are
right whatever an older daemon left in them (D-17). Settings come and go as the caller hands them
over: encrypted.

An uninstall deletes the endpoints of that installation (D-11): a hook without a plugin answers
nothing, and one that comes back to life with a later installation is a surprise. An upgrade
keeps them.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, final

import msgspec
from sqlalchemy import Connection, Row, Select, case, func, insert, select
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage import generation
from tidegate.storage.columns import row_key, tenant_key
from tidegate.storage.tables import endpoints as table
from tidegate.storage.tables import plugin_installations

_HOOK_CHARACTERS: Final = string.ascii_lowercase + string.digits
_HOOK_LENGTH: Final = 16
_NEVER: Final = datetime(2050, 1, 1, tzinfo=UTC)
"""Every endpoint's ``expired_at``; nobody ever looks at it."""


@final
@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of ``endpoints``; ``settings`` is an object also where the row cannot be read."""

    id: str
    name: str
    hook_id: str
    tenant: str
    user_id: str
    plugin_id: str
    expired_at: datetime
    enabled: bool
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime


# --------------------------------------------------------------------------- reading


def get(conn: Connection, tenant: str, endpoint_id: str) -> Endpoint | None:
    """One endpoint; None for another tenant's or a malformed id (D-19)."""
    key = row_key(endpoint_id)
    return _first(conn, _of_tenant(tenant).where(table.c.id == key)) if key else None


def by_hook(conn: Connection, hook_id: str) -> Endpoint | None:
    """The endpoint behind ``/e/<hook_id>/``, of whichever tenant, enabled or not."""
    return _first(conn, select(table).where(table.c.hook_id == hook_id))


def page(conn: Connection, tenant: str, offset: int, limit: int) -> list[Endpoint]:
    """``limit`` endpoints of a tenant from ``offset`` on, newest first."""
    return _all(conn, _of_tenant(tenant).offset(offset).limit(limit))


def page_of_plugin(
    conn: Connection, tenant: str, plugin_id: str, offset: int, limit: int
) -> list[Endpoint]:
    """The same for one plugin, whatever its version."""
    mine = _of_tenant(tenant).where(table.c.plugin_id == plugin_id)
    return _all(conn, mine.offset(offset).limit(limit))


# --------------------------------------------------------------------------- changing


def create(
    conn: Connection,
    tenant: str,
    identifier: str,
    *,
    user_id: str,
    name: str,
    settings: Mapping[str, Any],
    endpoint_id: str = "",
) -> Endpoint | None:
    """A new endpoint, enabled, under a new hook; None unless the tenant has exactly ``identifier``.

    ``endpoint_id``: the id to give it, for a caller that had to know it before.
    """
    plugin_id = plugin_id_of(identifier)
    # Locked: an uninstall at the same moment would leave an endpoint without a plugin.
    if _lock_installation(conn, tenant, plugin_id) != identifier:
        return None
    values = _new_row(tenant, plugin_id, user_id, name, settings)
    # Dify encrypts an endpoint's secrets under its id, so the id was needed before the row.
    values["id"] = endpoint_id or values["id"]
    conn.execute(insert(table).values(**values))
    _recount(conn, tenant, plugin_id)
    return get(conn, tenant, values["id"])


def update_settings(
    conn: Connection, tenant: str, endpoint_id: str, *, name: str, settings: Mapping[str, Any]
) -> Endpoint | None:
    """Another name and other settings; nothing else of the row. None when there is none."""
    key = row_key(endpoint_id)
    if key is None:
        return None
    changed = conn.execute(
        table.update()
        .where(table.c.id == key, table.c.tenant_id == tenant_key(tenant))
        .values(name=name, settings=_text(settings), updated_at=SYSTEM_CLOCK.now())
        .returning(table)
    ).first()
    if changed is None:
        return None
    generation.bump(conn)
    return _row(changed)


def set_enabled(conn: Connection, tenant: str, endpoint_id: str, enabled: bool) -> Endpoint | None:
    """Switch it on or off; the same again changes nothing. None when there is none."""
    found = get(conn, tenant, endpoint_id)
    if found is None:
        return None
    _lock_installation(conn, tenant, found.plugin_id)
    conn.execute(
        table.update()
        .where(table.c.id == found.id)
        .values(enabled=enabled, updated_at=SYSTEM_CLOCK.now())
    )
    _recount(conn, tenant, found.plugin_id)
    return get(conn, tenant, endpoint_id)


def remove(conn: Connection, tenant: str, endpoint_id: str) -> Endpoint | None:
    """Delete one; what it was, or None when there is none."""
    found = get(conn, tenant, endpoint_id)
    if found is None:
        return None
    _lock_installation(conn, tenant, found.plugin_id)
    conn.execute(delete_from(table).where(table.c.id == found.id))
    _recount(conn, tenant, found.plugin_id)
    return found


def remove_of_plugin(conn: Connection, tenant: str, plugin_id: str) -> int:
    """Delete all of one plugin's; how many. Called with its uninstallation, which bumps."""
    mine = (table.c.tenant_id == tenant_key(tenant), table.c.plugin_id == plugin_id)
    return conn.execute(delete_from(table).where(*mine)).rowcount


def new_hook_id() -> str:
    """16 characters a-z0-9 that nobody can guess (D-39): the only secret of an endpoint."""
    return "".join(secrets.choice(_HOOK_CHARACTERS) for _ in range(_HOOK_LENGTH))


# --------------------------------------------------------------------------- rows


def _lock_installation(conn: Connection, tenant: str, plugin_id: str) -> str | None:
    """The installed version, its row locked until the transaction ends; None without one."""
    rows = plugin_installations
    statement = (
        select(rows.c.plugin_unique_identifier)
        .where(rows.c.tenant_id == tenant_key(tenant), rows.c.plugin_id == plugin_id)
        .with_for_update()
    )
    return conn.execute(statement).scalar()


def _recount(conn: Connection, tenant: str, plugin_id: str) -> None:
    """Write the installation's counters; whoever shows them hears of it by the generation."""
    active = func.coalesce(func.sum(case((table.c.enabled, 1), else_=0)), 0)
    mine = (table.c.tenant_id == tenant_key(tenant), table.c.plugin_id == plugin_id)
    counted = conn.execute(select(func.count(), active).where(*mine)).one()
    rows = plugin_installations
    conn.execute(
        rows.update()
        .where(rows.c.tenant_id == tenant_key(tenant), rows.c.plugin_id == plugin_id)
        .values(endpoints_setups=int(counted[0]), endpoints_active=int(counted[1]))
    )
    generation.bump(conn)


def _of_tenant(tenant: str) -> Select[Any]:
    order = (table.c.created_at.desc(), table.c.id.desc())
    return select(table).where(table.c.tenant_id == tenant_key(tenant)).order_by(*order)


def _first(conn: Connection, statement: Select[Any]) -> Endpoint | None:
    row = conn.execute(statement.limit(1)).first()
    return _row(row) if row is not None else None


def _all(conn: Connection, statement: Select[Any]) -> list[Endpoint]:
    return [_row(row) for row in conn.execute(statement)]


def _new_row(
    tenant: str, plugin_id: str, user_id: str, name: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    now = SYSTEM_CLOCK.now()
    return {
        "id": str(row_id()),
        "created_at": now,
        "updated_at": now,
        "name": name,
        "hook_id": new_hook_id(),
        "tenant_id": tenant_key(tenant),
        "user_id": user_id,
        "plugin_id": plugin_id,
        "expired_at": _NEVER,
        "enabled": True,
        "settings": _text(settings),
    }


def _text(settings: Mapping[str, Any]) -> str:
    return msgspec.json.encode(dict(settings)).decode()


def _settings(text: str | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text or "null")
    except msgspec.DecodeError:
        return {}  # one broken row must not fail a list (D-13)
    return value if isinstance(value, dict) else {}


def _row(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        # Rows of daemons that had no names yet.
        name=row.name or "default",
        hook_id=row.hook_id or "",
        tenant=row.tenant_id or "",
        user_id=row.user_id or "",
        plugin_id=row.plugin_id or "",
        expired_at=row.expired_at or _NEVER,
        enabled=bool(row.enabled),
        settings=_settings(row.settings),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
