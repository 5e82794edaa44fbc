"""Statements that both databases have, but SQLAlchemy only per dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(conn: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT with ON CONFLICT in the dialect of this connection."""
    if conn.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_or_skip(conn: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert one row unless a unique index objects; False when it did.

    On PostgreSQL this waits for a transaction that is inserting the same row, so False means
    that the other row is there.
    """
    statement = insert(conn, table).values(**values).on_conflict_do_nothing()
    return conn.execute(statement.returning(table.c.id)).first() is not None
