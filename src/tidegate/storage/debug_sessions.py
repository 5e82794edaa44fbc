"""Plugins that are connected for debugging, in front of an installation or as one of their own.

    connect    -> the tenant's installation is the debugged version; what was installed before
                  is kept here and still counts as used (D-55)
    disconnect -> the installation is as it was, or gone when there was none

Both compare identifier and owner: a connection that ends late changes nothing that a newer one
has made, here or at another host (D-66). What somebody did to the installation meanwhile -
uninstalled it, moved it to another version - stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, select, update
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage import capabilities, declarations, generation, installations, references
from tidegate.storage.columns import tenant_key
from tidegate.storage.dialects import insert
from tidegate.storage.installations import Installation
from tidegate.storage.tables import debug_sessions as table
from tidegate.storage.tables import plugin_installations

RUNTIME = "remote"
"""Runtime type and source of a debugged plugin's installation."""


@final
@dataclass(frozen=True, slots=True)
class DebugSession:
    """One row: ``identifier`` is connected at the host ``owner``, whose link is at ``address``."""

    tenant: str
    plugin_id: str
    identifier: str
    owner: str
    address: str
    shadowed_identifier: str | None


class _Shadowed(msgspec.Struct, frozen=True):
    """What an installation's row has to become again."""

    identifier: str
    runtime_type: str
    source: str
    meta: dict[str, Any] = {}


def connect(
    conn: Connection,
    tenant: str,
    identifier: str,
    declaration: str,
    owner: str,
    address: str = "",
    *,
    take_over: bool = True,
) -> int | None:
    """The tenant's calls of this plugin go to the debugged version from now on.

    ``declaration`` is its JSON text, ``address`` where other hosts reach this one. Returns the
    generation; None when another host has it and it shall not be taken over. Called by the host
    that has the connection.
    """
    tenant = tenant_key(tenant)
    plugin_id = plugin_id_of(identifier)
    row = installations.find(conn, tenant, plugin_id)
    known = find(conn, tenant, plugin_id)
    if known is not None and known.owner != owner and not take_over:
        return None
    shadowed = None
    # What is installed now is not what an earlier connection put there: somebody changed it, and
    # that stands.
    if row is not None and (known is None or row.identifier != known.identifier):
        shadowed = _Shadowed(row.identifier, row.runtime_type, row.source, row.meta)
    mine = {"identifier": identifier, "owner": owner, "address": address}
    _put(conn, tenant, plugin_id, mine, shadowed, keep=known is not None and row is not None)
    if row is None:
        installations.install(
            conn, tenant, identifier, declaration, source=RUNTIME, meta={}, runtime_type=RUNTIME
        )
    elif row.identifier != identifier:
        _repoint(conn, row, _Shadowed(identifier, RUNTIME, RUNTIME), declaration)
    return generation.bump(conn)


def disconnect(conn: Connection, tenant: str, identifier: str, owner: str) -> int | None:
    """The debugged version is not connected at ``owner`` any more: put back what was there before.

    None when it was not the one that is connected last. Else the generation.
    """
    tenant = tenant_key(tenant)
    mine = (
        table.c.tenant_id == tenant,
        table.c.identifier == identifier,
        # The same code, restarted, has the same identifier and may have come to another host.
        table.c.owner == owner,
    )
    gone = conn.execute(delete_from(table).where(*mine).returning(table)).first()
    if gone is None:
        return None
    row = installations.find(conn, tenant, gone.plugin_id)
    # Else it was upgraded or uninstalled under the connection, and there is nothing to put back.
    if row is not None and row.identifier == identifier:
        _put_back(conn, row, gone)
    return generation.bump(conn)


def disconnect_all(conn: Connection, owner: str) -> list[DebugSession]:
    """Disconnect what a host left behind that was killed. Called at its next start."""
    return _disconnect_where(conn, table.c.owner == owner)


def disconnect_lost(conn: Connection, before: datetime) -> list[DebugSession]:
    """Disconnect what no host has renewed since ``before``. Called by every host now and then."""
    return _disconnect_where(conn, table.c.updated_at < before)


def renew(conn: Connection, owner: str) -> int:
    """A sign of life for all rows of a host; how many there are."""
    done = conn.execute(
        update(table).where(table.c.owner == owner).values(updated_at=SYSTEM_CLOCK.now())
    )
    return int(done.rowcount)


def find(conn: Connection, tenant: str, plugin_id: str) -> DebugSession | None:
    """The debugged version of a tenant's plugin, if one is connected."""
    statement = select(table).where(
        table.c.tenant_id == tenant_key(tenant), table.c.plugin_id == plugin_id
    )
    found = conn.execute(statement).first()
    return None if found is None else _row(found)


def find_version(conn: Connection, tenant: str, identifier: str) -> DebugSession | None:
    """Where this version is connected for ``tenant``. Called by a host that does not have it."""
    statement = select(table).where(
        table.c.tenant_id == tenant_key(tenant), table.c.identifier == identifier
    )
    found = conn.execute(statement).first()
    return None if found is None else _row(found)


def _disconnect_where(conn: Connection, condition: ColumnElement[bool]) -> list[DebugSession]:
    rows = [_row(one) for one in conn.execute(select(table).where(condition))]
    # Through `disconnect`, which compares again: a row may have come to life since it was read.
    for row in rows:
        disconnect(conn, row.tenant, row.identifier, row.owner)
    return rows


def _put(
    conn: Connection,
    tenant: str,
    plugin_id: str,
    mine: dict[str, str],
    shadowed: _Shadowed | None,
    *,
    keep: bool,
) -> None:
    """``mine`` says who is connected and where.

    ``keep``: what an earlier connection stands in front of stays, unless there is news.
    """
    now = SYSTEM_CLOCK.now()
    values: dict[str, Any] = {**mine, "updated_at": now}
    if shadowed is not None or not keep:
        values["shadowed_identifier"] = shadowed.identifier if shadowed else None
        values["shadowed"] = msgspec.json.encode(shadowed).decode() if shadowed else None
    statement = insert(conn, table).values(
        id=str(row_id()), created_at=now, tenant_id=tenant, plugin_id=plugin_id, **values
    )
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.tenant_id, table.c.plugin_id], set_=values
        )
    )


def _put_back(conn: Connection, row: Installation, gone: Row[Any]) -> None:
    before = None
    if gone.shadowed is not None:
        before = msgspec.json.decode(gone.shadowed, type=_Shadowed)
        declared = declarations.get(conn, before.identifier)
    # Without its declaration the version before cannot be shown or called: better none than a
    # broken one.
    if before is None or declared is None:
        installations.uninstall(conn, row.tenant, row.id)
        return
    _repoint(conn, row, before, declared.text)


def _repoint(conn: Connection, row: Installation, to: _Shadowed, declaration: str) -> None:
    """Let an installation be another version; it keeps its id, age and endpoint counters."""
    conn.execute(
        update(plugin_installations)
        .where(plugin_installations.c.id == row.id)
        .values(
            plugin_unique_identifier=to.identifier,
            runtime_type=to.runtime_type,
            source=to.source,
            meta=msgspec.json.encode(to.meta).decode(),
            updated_at=SYSTEM_CLOCK.now(),
        )
    )
    references.switch(
        conn, row.identifier, to.identifier, source=to.source, install_type=to.runtime_type
    )
    declarations.keep(conn, to.identifier, declaration)
    capabilities.replace(conn, row.tenant, to.identifier, declaration)


def _row(row: Row[Any]) -> DebugSession:
    return DebugSession(
        row.tenant_id,
        row.plugin_id,
        row.identifier,
        row.owner,
        row.address or "",
        row.shadowed_identifier,
    )
