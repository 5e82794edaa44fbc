"""Statements that both databases have, but SQLAlchemy only per dialect."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Table, func, select
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


def lock_until_commit(conn: Connection, name: str) -> None:
    """Wait until this transaction is the only one that has ``name``; what it reads next is new.

    Nothing on SQLite, which has one writer at a time. Of the transaction, not of the session:
    behind pgbouncer the session is somebody else's afterwards.
    """
    if conn.dialect.name == "postgresql":
        # An advisory lock takes a signed 64-bit number. hash() would differ from process to
        # process.
        key = int.from_bytes(sha256(name.encode()).digest()[:8], signed=True)
        conn.execute(select(func.pg_advisory_xact_lock(key)))
