"""``migrate``: bring the database to the tables that this version of Tidegate needs.

Every start calls it, so the usual case - nothing to do - asks one question over a bare driver
and loads neither SQLAlchemy nor Alembic. Otherwise one transaction does everything, under a lock
that all starting processes share: a file lock for SQLite, an advisory lock for PostgreSQL.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from tidegate.errors import DatabaseUnavailable, StartRefused
from tidegate.settings import Settings
from tidegate.storage import postgresql
from tidegate.storage.migrations import HEAD, VERSION_TABLE
from tidegate.telemetry.logs import get_log

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCK_PATIENCE = 120.0
"""Seconds to wait for another process that migrates."""
_ADVISORY_KEY = 0x7469_6465_6761_7465  # "tidegate": the same number in every process
_QUESTION = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608  a constant
_SCRIPTS = Path(__file__).parent / "migrations"

log = get_log("storage")


def migrate(settings: Settings) -> bool:
    """Called by every role and ``tidegate migrate`` before anything else uses the database.

    False when there was nothing to do. StartRefused with one line when it cannot be done; then
    the database is as it was.
    """
    if is_current(settings):
        return False
    try:
        if settings.database_kind == "sqlite":
            return _migrate_sqlite(settings)
        return _migrate_postgresql(settings)
    except DatabaseUnavailable as error:
        raise StartRefused(f"{error.message}. {_advice(settings)}") from error
    except OSError as error:
        raise StartRefused(f"{_where(settings)}: {error}") from error


def is_current(settings: Settings) -> bool:
    """Whether the database has this version's tables; False also when it cannot be asked."""
    revision = _revision(settings)
    if revision is not None and revision > HEAD:
        # expand, migrate, contract: a newer Tidegate's tables still serve this one
        log.warning("database is newer than this version", revision=revision, known=HEAD)
    return revision is not None and revision >= HEAD


def _revision(settings: Settings) -> str | None:
    try:
        if settings.database_kind == "sqlite":
            # Read-only: only looking must not create the file, with a mode that nobody chose.
            uri = f"{settings.home.database.as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=1)) as file:
                return _text(file.execute(_QUESTION).fetchone())
        arguments = postgresql.connect_arguments(settings)
        with closing(psycopg2.connect(**arguments)) as server, server.cursor() as cursor:
            cursor.execute(_QUESTION)
            return _text(cursor.fetchone())
    except (sqlite3.Error, psycopg2.Error):
        return None  # nothing there, or no answer: the long way finds out and says so


def _text(row: tuple[object, ...] | None) -> str | None:
    return str(row[0]) if row else None


def _migrate_sqlite(settings: Settings) -> bool:
    path = settings.home.database
    # Rows hold encrypted secrets and what plugins were told: for this user only.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _file_lock(path.with_name(f"{path.name}.migrate.lock")):
        if is_current(settings):
            return False
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # the mode that -wal inherits
        _upgrade(settings)
        return True


def _migrate_postgresql(settings: Settings) -> bool:
    try:
        _upgrade(settings)
    # Most often the database is simply not there yet; only then is it worth asking for the right
    # to make it.
    except DatabaseUnavailable:
        if not _created(settings):
            raise
        _upgrade(settings)
    return True


def _created(settings: Settings) -> bool:
    try:
        made = postgresql.create_database(settings)
    except psycopg2.Error as error:
        log.warning("cannot create the database", error=str(error).strip())
        return False
    if made:
        log.info("database created", database=settings.db_database)
    return made


def _upgrade(settings: Settings) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.exc import DatabaseError

    from tidegate.storage.database import Database

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    database = Database(settings, limited=False)
    started = time.monotonic()
    try:
        # One transaction for everything: DDL is transactional on both, so a start that is killed
        # leaves the database as it was.
        with database.write() as connection:
            # Before Alembic looks at the revision: whoever waited for it finds the work done.
            _advisory_lock(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DatabaseError as error:
        reason = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
        raise StartRefused(f"{_where(settings)} cannot be migrated: {reason}") from error
    finally:
        database.dispose()
    log.info("database migrated", revision=HEAD, ms=round((time.monotonic() - started) * 1000))


def _advisory_lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(LOCK_PATIENCE)}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY})")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    end = time.monotonic() + LOCK_PATIENCE
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise StartRefused(
                        f"another process has been migrating {path.parent} for "
                        f"{LOCK_PATIENCE:g} s: see what it waits for, then start again"
                    ) from None
            time.sleep(0.05)  # a blocking flock would stop the hub
        yield


def _where(settings: Settings) -> str:
    if settings.database_kind == "sqlite":
        return f"database {settings.home.database}"
    return f"database {settings.db_database} on {settings.db_host}:{settings.db_port}"


def _advice(settings: Settings) -> str:
    if settings.database_kind == "sqlite":
        return f"The database is {settings.home.database} (TIDEGATE_HOME)"
    return (
        f"Tried {settings.db_username}@{settings.db_host}:{settings.db_port}/"
        f"{settings.db_database}: check DB_HOST, DB_PORT, DB_USERNAME, DB_PASSWORD, DB_DATABASE"
    )
