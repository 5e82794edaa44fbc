"""The face of the database: a connection to read with, a connection to write with.

    with database.read() as conn:  row = installations.find(conn, tenant, plugin_id)
    with database.write() as conn: installations.uninstall(conn, tenant, row.id)

Each block is one transaction: committed at its end, rolled back by any exception, and an error
of the commit is an error of the block (D-49). On SQLite nothing may wait inside a write block
(:mod:`tidegate.storage.guard`): no call, no blob, no log over the network.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, final

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, QueuePool

from tidegate.errors import DatabaseUnavailable
from tidegate.settings import Settings
from tidegate.storage import busy, postgresql, sqlite

POOL_PATIENCE = 10.0
"""Seconds that a greenlet waits for a connection when all of them are in use."""


@final
class Database:
    """One per process, made after the fork; connects at first use. Safe between greenlets."""

    def __init__(self, settings: Settings, *, limited: bool = True) -> None:
        """``limited``: PostgreSQL ends statements that take too long; off for migrations."""
        self._settings = settings
        self._limited = limited

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._settings.database_kind

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that cannot write. DatabaseUnavailable when there is no database."""
        with _named_errors(self.kind), self._read_engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write. DatabaseUnavailable when it stays locked, or is full."""
        with _named_errors(self.kind), self._write_engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close every idle connection; the next use opens new ones."""
        for name in ("_read_engine", "_write_engine"):
            if name in self.__dict__:
                self.__dict__[name].dispose()

    @cached_property
    def _write_engine(self) -> Engine:
        if self.kind == "sqlite":
            return sqlite.write_engine(self._settings.home.database, POOL_PATIENCE)
        return _postgresql_engine(self._settings, limited=self._limited)

    @cached_property
    def _read_engine(self) -> Engine:
        if self.kind == "sqlite":
            return sqlite.read_engine(self._settings.home.database, POOL_PATIENCE)
        return self._write_engine.execution_options(postgresql_readonly=True)


def _postgresql_engine(settings: Settings, *, limited: bool) -> Engine:
    keep = max(0, min(settings.db_max_idle_conns, settings.db_max_open_conns))
    options: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": keep or 1,
        "max_overflow": settings.db_max_open_conns - (keep or 1),
        "pool_recycle": settings.db_conn_max_lifetime or -1,
        "pool_timeout": POOL_PATIENCE,
        # A server that restarted leaves dead connections in the pool: asking first costs one round
        # trip, and not a failed request each.
        "pool_pre_ping": True,
        # The one used last first, so that a server which times idle connections out sees idle
        # ones.
        "pool_use_lifo": True,
    }
    if postgresql.through_pgbouncer(settings):
        options = {"poolclass": NullPool}  # the pool is there already
    return create_engine(
        "postgresql+psycopg2://",
        connect_args=postgresql.connect_arguments(settings, limited=limited),
        use_native_hstore=False,  # saves a query per connection
        **options,
    )


@contextmanager
def _named_errors(kind: str) -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(
            f"no free database connection within {POOL_PATIENCE:g} s ({kind})", reason="pool"
        ) from error
    except (OperationalError, InterfaceError) as error:
        raise _unavailable(kind, error.orig) from error
    except InternalError as error:
        if not postgresql.is_read_only(error.orig):
            raise
        raise DatabaseUnavailable(
            "the database takes no writes for now (read-only): a fail-over, perhaps",
            reason="read_only",
        ) from error
    except sqlite3.OperationalError as error:  # of BEGIN, which SQLAlchemy does not wrap
        raise _unavailable(kind, error) from error


def _unavailable(kind: str, cause: BaseException | None) -> DatabaseUnavailable:
    if busy.is_full(cause):
        return DatabaseUnavailable(
            "the disk of the database is full: free some space; nothing was changed", reason="full"
        )
    if busy.is_locked(cause):
        return DatabaseUnavailable(
            f"another process has kept the database locked for {sqlite.LOCK_PATIENCE:g} s",
            reason="locked",
        )
    return DatabaseUnavailable(f"database ({kind}): {_first_line(cause)}", reason="error")


def _first_line(cause: BaseException | None) -> str:
    return (str(cause).strip().splitlines() or ["no reason given"])[0]
