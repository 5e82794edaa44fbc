"""Readmes of packages: one row per language, taken from the package when first asked for.

They go with the last installation of their version; the package stays and has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection, select

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import row_id
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.tables import plugin_readme_records as table

DEFAULT_LANGUAGE: Final = "en_US"
_LONGEST_LANGUAGE: Final = 10


@final
@dataclass(frozen=True, slots=True)
class Readme:
    """One readme; ``language`` is the one it is written in, not the one asked for."""

    language: str
    content: str


def get(conn: Connection, identifier: str, language: str = "") -> Readme | None:
    """In that language, else in English, else in any; None when none is kept.

    None says nothing about the package: call :func:`put` with what it has.
    """
    statement = (
        select(table.c.language, table.c.content)
        .where(table.c.plugin_unique_identifier == identifier)
        .order_by(table.c.created_at, table.c.language)
    )
    rows = {row.language: row.content for row in reversed(conn.execute(statement).all())}
    for wanted in (language, DEFAULT_LANGUAGE, *sorted(rows)):
        if wanted in rows:
            return Readme(wanted, rows[wanted])
    return None


def put(conn: Connection, identifier: str, contents: Mapping[str, str]) -> None:
    """Keep a package's readmes, language -> text. Two callers at once keep each once."""
    now = SYSTEM_CLOCK.now()
    for language, content in contents.items():
        if len(language) > _LONGEST_LANGUAGE:
            continue  # no column for it, and no language of Dify's
        values = {
            "id": str(row_id()),
            "created_at": now,
            "updated_at": now,
            "plugin_unique_identifier": identifier,
            "language": language,
            "content": content.replace("\0", ""),
        }
        insert_or_skip(conn, table, values)
