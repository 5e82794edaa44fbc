"""Where the function of a plugin is called: the reference's table, one row per version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from sqlalchemy import Connection, select, update

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import PluginIdentifier, row_id
from tidegate.storage import generation
from tidegate.storage.dialects import insert
from tidegate.storage.tables import serverless_runtimes as table


@final
@dataclass(frozen=True, slots=True)
class ServerlessRuntime:
    """One row. ``url`` is the function's, without ``/invoke``."""

    identifier: str
    url: str
    name: str


def find(conn: Connection, identifier: str) -> ServerlessRuntime | None:
    """The function of one version. Called by the host."""
    row = conn.execute(select(table).where(table.c.plugin_unique_identifier == identifier)).first()
    if row is None:
        return None
    return ServerlessRuntime(identifier, row.function_url or "", row.function_name or "")


def put(conn: Connection, identifier: PluginIdentifier, url: str, name: str) -> None:
    """The function was launched, or launched again. Called by the host."""
    now = SYSTEM_CLOCK.now()
    found = {"function_url": url, "function_name": name, "updated_at": now}
    statement = insert(conn, table).values(
        id=str(row_id()),
        created_at=now,
        plugin_unique_identifier=str(identifier),
        checksum=identifier.checksum,
        type="serverless",
        **found,
    )
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.plugin_unique_identifier], set_=found
        )
    )
    generation.bump(conn)


def switch(conn: Connection, identifier: str, url: str, name: str) -> bool:
    """Call another function from now on; False when there is none. For the admin route."""
    changed = conn.execute(
        update(table)
        .where(table.c.plugin_unique_identifier == identifier)
        .values(function_url=url, function_name=name, updated_at=SYSTEM_CLOCK.now())
    )
    if not changed.rowcount:
        return False
    generation.bump(conn)
    return True
