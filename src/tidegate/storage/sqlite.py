"""The two SQLite engines, exactly as measured (decisions.md section B).

* write: one connection per process, so that greenlets queue in gevent; ``BEGIN IMMEDIATE``,
  retried in gevent while another process writes; :mod:`tidegate.storage.guard`.
* read: ``query_only``, a snapshot per transaction, never behind a writer.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from tidegate.storage.busy import patiently
from tidegate.storage.guard import SwitchGuard

LOCK_PATIENCE = 5.0
"""Seconds for which BEGIN is retried while another process holds the write lock."""

_PRAGMAS = (
    "synchronous=normal",
    "foreign_keys=on",
    "busy_timeout=0",
    "journal_size_limit=16777216",
    "wal_autocheckpoint=200",
)


def write_engine(path: Path, patience: float) -> Engine:
    """One connection; every transaction is BEGIN IMMEDIATE and guarded against switches.

    ``patience``: seconds that a greenlet queues for a connection of its own process.
    """
    # One connection: greenlets queue for it in gevent, first come first served. With more they
    # would meet at SQLite's lock, which can only be tried again.
    engine = _engine(path, ("journal_mode=wal", *_PRAGMAS), patience, pool_size=1, max_overflow=0)
    event.listen(engine, "begin", _begin_write)
    event.listen(engine, "commit", _commit_write)
    event.listen(engine, "rollback", _rollback_write)
    return engine


def read_engine(path: Path, patience: float) -> Engine:
    """Up to ten connections that cannot write."""
    engine = _engine(path, (*_PRAGMAS, "query_only=on"), patience, pool_size=5, max_overflow=5)
    event.listen(engine, "begin", _begin_read)
    return engine


def _engine(path: Path, pragmas: tuple[str, ...], patience: float, **pool: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        pool_timeout=patience,
        connect_args={"check_same_thread": False, "timeout": 0},
        **pool,
    )

    def configure(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where it guesses
        for pragma in pragmas:
            patiently(partial(connection.execute, f"PRAGMA {pragma}"), LOCK_PATIENCE)
        record.info["guard"] = SwitchGuard()

    event.listen(engine, "connect", configure)
    return engine


def _guard(connection: Connection) -> SwitchGuard:
    guard: SwitchGuard = connection.connection.info["guard"]
    return guard


def _raw(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


def _begin_write(connection: Connection) -> None:
    raw = _raw(connection)
    patiently(lambda: raw.execute("BEGIN IMMEDIATE"), LOCK_PATIENCE)
    _guard(connection).arm()


def _commit_write(connection: Connection) -> None:
    guard = _guard(connection)
    guard.disarm()
    # After disarming, before COMMIT: code that swallowed the error at its wait must not get its
    # half committed.
    guard.check()


def _rollback_write(connection: Connection) -> None:
    _guard(connection).disarm()


def _begin_read(connection: Connection) -> None:
    # The first read takes the snapshot and can meet a lock (recovery, last writer leaving);
    # take it here, where it can be retried. Later reads of the transaction cannot.
    raw = _raw(connection)
    # Explicitly: without a transaction each SELECT would see another state of the rows.
    raw.execute("BEGIN")
    patiently(lambda: raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall(), LOCK_PATIENCE)
