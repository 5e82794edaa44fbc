"""Installations: which tenant has which version of which plugin, and how that changes.

Rows are locked in one order everywhere - installation, then plugins by identifier, then the
generation - so that no two of these transactions wait for each other (spec/http/02 section 3).
A tenant has at most one version of a plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

import msgspec
from sqlalchemy import Connection, Row, Select, func, select
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage import capabilities, declarations, endpoints, generation, references
from tidegate.storage.columns import row_key, tenant_key
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.tables import plugin_installations as table


@final
@dataclass(frozen=True, slots=True)
class Installation:
    """One row of ``plugin_installations``; ``meta`` is an object also where the row has null."""

    id: str
    tenant: str
    plugin_id: str
    identifier: str
    runtime_type: str
    endpoints_setups: int
    endpoints_active: int
    source: str
    meta: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@final
@dataclass(frozen=True, slots=True)
class Installed:
    """What install() found or did; ``created`` is False when the tenant had the plugin already."""

    installation: Installation
    created: bool


@final
@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What uninstall() removed; ``last_reference``: no tenant uses that version any more."""

    identifier: str
    plugin_id: str
    last_reference: bool


@final
@dataclass(frozen=True, slots=True)
class Upgraded:
    """What upgrade() switched; ``old_last_reference``: nobody uses the old version any more."""

    installation: Installation
    old_identifier: str
    old_last_reference: bool


# --------------------------------------------------------------------------- reading


def find(conn: Connection, tenant: str, plugin_id: str) -> Installation | None:
    """The tenant's installation of ``author/name``, whatever its version."""
    return _first(conn, _of_tenant(tenant).where(table.c.plugin_id == plugin_id))


def find_many(conn: Connection, tenant: str, plugin_ids: Iterable[str]) -> list[Installation]:
    """The tenant's installations among these plugins, newest first."""
    return _all(conn, _of_tenant(tenant).where(table.c.plugin_id.in_(list(plugin_ids))))


def page(conn: Connection, tenant: str, offset: int, limit: int) -> tuple[list[Installation], int]:
    """``limit`` installations from ``offset`` on, newest first, and how many there are."""
    counted = select(func.count()).where(table.c.tenant_id == tenant_key(tenant))
    rows = _all(conn, _of_tenant(tenant).offset(offset).limit(limit))
    return rows, int(conn.execute(counted).scalar_one())


def all_of_tenant(conn: Connection, tenant: str) -> list[Installation]:
    """Every installation of a tenant, newest first. For the catalogue kept in memory only."""
    return _all(conn, _of_tenant(tenant))


def is_installed_anywhere(conn: Connection, identifier: str) -> bool:
    """Whether any tenant has exactly this version."""
    return references.is_used(conn, identifier)


def installed_identifiers(conn: Connection, after: str, limit: int) -> list[str]:
    """Versions that somebody has and this host runs, in order, from the one after ``after`` on."""
    column = table.c.plugin_unique_identifier
    local = func.coalesce(table.c.runtime_type, "local").in_(("local", ""))
    statement = select(column).where(column > after, local).distinct().order_by(column)
    statement = statement.limit(limit)
    return [str(identifier) for identifier in conn.execute(statement).scalars()]


# --------------------------------------------------------------------------- changing


def install(
    conn: Connection,
    tenant: str,
    identifier: str,
    declaration: str,
    *,
    source: str,
    meta: Mapping[str, Any] | None = None,
    runtime_type: str = "local",
) -> Installed:
    """Install for one tenant (02 section 3.1). ``declaration`` is the JSON text.

    Also keeps the declaration row, which goes with a version's last reference although the
    package stays. Changes nothing when the tenant has any version of the plugin.
    """
    plugin_id = plugin_id_of(identifier)
    values = _new_row(tenant, identifier, source, meta, runtime_type)
    # The unique index on (tenant, plugin) decides, not a look before it: two tabs of one browser
    # are enough for both to find nothing.
    created = insert_or_skip(conn, table, values)
    if created:
        references.add(conn, identifier, install_type=runtime_type, source=source)
        declarations.keep(conn, identifier, declaration)
        capabilities.replace(conn, tenant, identifier, declaration)
        generation.bump(conn)
    installation = find(conn, tenant, plugin_id)
    if installation is None:  # uninstalled between our two statements: try once more
        return install(
            conn,
            tenant,
            identifier,
            declaration,
            source=source,
            meta=meta,
            runtime_type=runtime_type,
        )
    return Installed(installation, created)


def uninstall(conn: Connection, tenant: str, installation_id: str) -> Uninstalled | None:
    """Uninstall for one tenant (02 section 3.2); None when there is no such installation.

    Its endpoints go with it (D-11). With the last reference the rows of the version go; package
    and assets stay.
    """
    key = row_key(installation_id)
    if key is None:
        return None
    statement = delete_from(table).where(table.c.id == key, table.c.tenant_id == tenant_key(tenant))
    gone = conn.execute(
        statement.returning(table.c.plugin_unique_identifier, table.c.plugin_id)
    ).first()
    if gone is None:
        return None
    # After the row is gone: it counts the installations that are left.
    last = references.remove(conn, gone.plugin_unique_identifier)
    capabilities.drop(conn, tenant_key(tenant), gone.plugin_id)
    endpoints.remove_of_plugin(conn, tenant, gone.plugin_id)
    generation.bump(conn)
    return Uninstalled(gone.plugin_unique_identifier, gone.plugin_id, last)


def upgrade(
    conn: Connection,
    tenant: str,
    old_identifier: str,
    new_identifier: str,
    declaration: str,
    *,
    source: str,
    meta: Mapping[str, Any] | None = None,
) -> Upgraded | None:
    """Switch a tenant to another version (02 section 3.3); None when it has not the old one.

    The row keeps its id, age and endpoint counters. Both identifiers are of one plugin: the
    caller has checked that.
    """
    key = tenant_key(tenant)
    switched = _switch(conn, key, old_identifier, new_identifier, source, meta)
    if switched is None:
        return None
    last = references.switch(
        conn,
        old_identifier,
        new_identifier,
        source=source,
        install_type=switched.runtime_type or "local",
    )
    declarations.keep(conn, new_identifier, declaration)
    capabilities.replace(conn, key, new_identifier, declaration)
    generation.bump(conn)
    return Upgraded(_row(switched), old_identifier, last)


# --------------------------------------------------------------------------- rows


def _switch(
    conn: Connection, key: str, old: str, new: str, source: str, meta: Mapping[str, Any] | None
) -> Row[Any] | None:
    values = {"plugin_unique_identifier": new, "source": source, "meta": _meta_text(meta)}
    # The old version is part of the condition: of two upgrades at once the second changes nothing.
    mine = (table.c.tenant_id == key, table.c.plugin_unique_identifier == old)
    statement = table.update().where(*mine).values(**values, updated_at=SYSTEM_CLOCK.now())
    return conn.execute(statement.returning(table)).first()


def _of_tenant(tenant: str) -> Select[Any]:
    order = (table.c.created_at.desc(), table.c.id.desc())
    return select(table).where(table.c.tenant_id == tenant_key(tenant)).order_by(*order)


def _first(conn: Connection, statement: Select[Any]) -> Installation | None:
    row = conn.execute(statement.limit(1)).first()
    return _row(row) if row is not None else None


def _all(conn: Connection, statement: Select[Any]) -> list[Installation]:
    return [_row(row) for row in conn.execute(statement)]


def _new_row(
    tenant: str, identifier: str, source: str, meta: Mapping[str, Any] | None, runtime_type: str
) -> dict[str, Any]:
    now = SYSTEM_CLOCK.now()
    return {
        "id": str(row_id()),
        "created_at": now,
        "updated_at": now,
        "tenant_id": tenant_key(tenant),
        "plugin_id": plugin_id_of(identifier),
        "plugin_unique_identifier": identifier,
        "runtime_type": runtime_type,
        "endpoints_setups": 0,
        "endpoints_active": 0,
        "source": source,
        "meta": _meta_text(meta),
    }


def _meta_text(meta: Mapping[str, Any] | None) -> str:
    """Always an object: Dify cannot read null (D-12)."""
    return msgspec.json.encode(dict(meta or {})).decode()


def _meta(text: str | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text or "null")
    except msgspec.DecodeError:
        return {}  # one broken row must not fail a list (D-13)
    return value if isinstance(value, dict) else {}


def _row(row: Row[Any]) -> Installation:
    return Installation(
        id=row.id,
        tenant=row.tenant_id,
        plugin_id=row.plugin_id or "",
        identifier=row.plugin_unique_identifier or "",
        runtime_type=row.runtime_type or "",
        endpoints_setups=row.endpoints_setups or 0,
        endpoints_active=row.endpoints_active or 0,
        source=row.source or "",
        meta=_meta(row.meta),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
