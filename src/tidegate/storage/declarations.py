"""Declarations: one row per uploaded package; its JSON text is kept as it came."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

from sqlalchemy import Connection, Row, select
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage import generation
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.tables import plugin_declarations as table


@final
@dataclass(frozen=True, slots=True)
class Declaration:
    """``text`` is the declaration as JSON (icons remapped, ``verified`` filled in)."""

    id: str
    identifier: str
    plugin_id: str
    text: str
    created_at: datetime
    updated_at: datetime


def get(conn: Connection, identifier: str) -> Declaration | None:
    """The declaration of one uploaded package. Called by installs and doors."""
    return get_many(conn, [identifier]).get(identifier)


def get_many(conn: Connection, identifiers: Iterable[str]) -> dict[str, Declaration]:
    """The declarations of one page of a list, by identifier; missing ones are left out."""
    statement = select(table).where(table.c.plugin_unique_identifier.in_(list(identifiers)))
    rows = map(_row, conn.execute(statement))
    return {row.identifier: row for row in rows}


def put_if_absent(conn: Connection, identifier: str, text: str) -> bool:
    """Keep the declaration of an upload; False when it was there (the first upload's stays)."""
    # The identifier holds a checksum of the contents: the second says the same.
    made = keep(conn, identifier, text)
    if made:
        generation.bump(conn)
    return made


def delete(conn: Connection, identifier: str) -> bool:
    """Forget an uploaded package; True when it was there. Called when an upload is rolled back."""
    statement = delete_from(table).where(table.c.plugin_unique_identifier == identifier)
    gone = conn.execute(statement).rowcount > 0
    if gone:
        generation.bump(conn)
    return gone


def page(conn: Connection, after: str, limit: int) -> list[Declaration]:
    """Declarations in the order of their identifiers, from the one after ``after`` on."""
    column = table.c.plugin_unique_identifier
    statement = select(table).where(column > after).order_by(column).limit(limit)
    return [_row(row) for row in conn.execute(statement)]


def keep(conn: Connection, identifier: str, text: str) -> bool:
    """:func:`put_if_absent` for a caller that bumps the generation itself."""
    now = SYSTEM_CLOCK.now()
    return insert_or_skip(
        conn,
        table,
        {
            "id": str(row_id()),
            "created_at": now,
            "updated_at": now,
            "plugin_unique_identifier": identifier,
            "plugin_id": plugin_id_of(identifier),
            "declaration": text,
        },
    )


def _row(row: Row[Any]) -> Declaration:
    return Declaration(
        id=row.id,
        identifier=row.plugin_unique_identifier,
        plugin_id=row.plugin_id,
        text=row.declaration or "",
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
