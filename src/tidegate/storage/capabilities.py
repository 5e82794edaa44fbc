"""Which providers an installation offers: one row per kind in its declaration (02 section 3).

Lists are ordered, newest first (D-14); a row whose declaration is missing or broken is left out
and logged, never the whole list (D-13). Old databases have rows twice: the newest one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, insert, or_, select
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage.columns import tenant_key
from tidegate.storage.declared import DeclarationBroken, parts_of
from tidegate.storage.tables import capabilities, plugin_declarations, plugin_installations
from tidegate.telemetry.logs import get_log

log = get_log("storage")


@final
@dataclass(frozen=True, slots=True)
class Capability:
    """One provider of a tenant. ``declaration`` and ``meta`` are JSON, as they were uploaded:
    the provider's own part, and the manifest's ``meta``.
    """

    id: str
    tenant: str
    kind: str
    provider: str
    plugin_id: str
    identifier: str
    declaration: bytes
    meta: bytes
    created_at: datetime
    updated_at: datetime


@final
@dataclass(frozen=True, slots=True)
class ModelBinding:
    """Which installation serves a model provider (01 section 3.14)."""

    provider: str
    installation_id: str
    plugin_id: str
    identifier: str
    runtime_type: str
    source: str
    verified: bool


# --------------------------------------------------------------------------- reading


def page(conn: Connection, tenant: str, kind: str, offset: int, limit: int) -> list[Capability]:
    """``limit`` providers of a kind (a key of ``tables.capabilities``), newest first."""
    return [*_capabilities(conn, kind, _of_tenant(tenant, kind).offset(offset).limit(limit))]


def find(
    conn: Connection, tenant: str, kind: str, plugin_id: str, provider: str
) -> Capability | None:
    """One provider by its plugin and its own name; None when the tenant has none such."""
    table = capabilities[kind]
    statement = _of_tenant(tenant, kind).where(
        table.c.plugin_id == plugin_id, table.c.provider == provider
    )
    return next(_capabilities(conn, kind, statement.limit(1)), None)


def model_bindings(conn: Connection, tenant: str) -> list[ModelBinding]:
    """Every model provider of the tenant with its installation, newest first, each once."""
    table, rows = capabilities["model"], plugin_installations
    same = and_(
        rows.c.tenant_id == table.c.tenant_id,
        rows.c.plugin_id == table.c.plugin_id,
        rows.c.plugin_unique_identifier == table.c.plugin_unique_identifier,
    )
    columns = (rows.c.id.label("installation_id"), rows.c.runtime_type, rows.c.source)
    statement = _of_tenant(tenant, "model").add_columns(*columns).join(rows, same)
    return [_binding(row) for row in conn.execute(statement)]


def tool_exists(conn: Connection, tenant: str, wanted: Iterable[tuple[str, str]]) -> list[bool]:
    """Whether the tenant has each of these (plugin id, provider), in their order."""
    table = capabilities["tool"]
    asked = list(wanted)
    statement = select(table.c.plugin_id, table.c.provider).where(
        table.c.tenant_id == tenant_key(tenant),
        table.c.plugin_id.in_({plugin_id for plugin_id, _ in asked}),
    )
    have = {(row.plugin_id, row.provider) for row in conn.execute(statement)}
    return [one in have for one in asked]


# --------------------------------------------------------------------------- changing


def replace(conn: Connection, tenant: str, identifier: str, declaration: str) -> None:
    """Drop what the tenant's installation offered, record what ``declaration`` offers."""
    plugin_id = plugin_id_of(identifier)
    # All of it anew: a version may offer other kinds than the one before.
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


# --------------------------------------------------------------------------- rows


def _of_tenant(tenant: str, kind: str) -> Select[Any]:
    table = capabilities[kind]
    declared = plugin_declarations
    same = declared.c.plugin_unique_identifier == table.c.plugin_unique_identifier
    return (
        select(table, declared.c.declaration)
        # Outer, so that a provider without a declaration is found, and logged, instead of being
        # silently absent.
        .outerjoin(declared, same)
        .where(table.c.tenant_id == tenant_key(tenant), ~_has_newer_twin(kind))
        .order_by(table.c.created_at.desc(), table.c.id.desc())
    )


def _has_newer_twin(kind: str) -> ColumnElement[bool]:
    table = capabilities[kind]
    twin = table.alias("twin")
    # Of the same instant the larger id: whichever, but only one of them.
    newer = or_(
        twin.c.created_at > table.c.created_at,
        and_(twin.c.created_at == table.c.created_at, twin.c.id > table.c.id),
    )
    same = (getattr(twin.c, name) == getattr(table.c, name) for name in _PROVIDER_KEY)
    return select(twin.c.id).where(*same, newer).exists()


_PROVIDER_KEY = ("tenant_id", "plugin_id", "provider")


def _capabilities(conn: Connection, kind: str, statement: Select[Any]) -> Iterator[Capability]:
    for row in conn.execute(statement):
        try:
            yield _capability(kind, row)
        except DeclarationBroken as error:
            log.error("provider left out", kind=kind, plugin=row.plugin_id, error=error.message)


def _capability(kind: str, row: Row[Any]) -> Capability:
    parts = parts_of(row.declaration)
    return Capability(
        id=row.id,
        tenant=row.tenant_id,
        kind=kind,
        provider=row.provider,
        plugin_id=row.plugin_id or "",
        identifier=row.plugin_unique_identifier or "",
        declaration=parts.part(kind),
        meta=bytes(parts.meta),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _binding(row: Row[Any]) -> ModelBinding:
    try:
        verified = parts_of(row.declaration).is_verified
    except DeclarationBroken:
        verified = False
    return ModelBinding(
        provider=row.provider,
        installation_id=row.installation_id,
        plugin_id=row.plugin_id,
        identifier=row.plugin_unique_identifier,
        runtime_type=row.runtime_type or "",
        source=row.source or "",
        verified=verified,
    )
