"""PostgreSQL by psycopg2: how to connect, with which pool, and how to make the database.

That psycopg2 waits in gevent is applied by ``runtime``, not here. Values go to libpq one by one,
never pasted into a connection string, so any password works (D-61).
"""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2 import errors as pg_errors
from psycopg2 import extensions, sql

from tidegate.errors import SettingInvalid
from tidegate.settings import Settings

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
"""A query that nobody waits for any more must not run for ever in the server."""


def connect_arguments(settings: Settings, *, limited: bool = True) -> dict[str, Any]:
    """What psycopg2.connect takes. ``limited``: with the statement time-out (not for DDL)."""
    arguments: dict[str, Any] = {
        "host": settings.db_host,
        "port": settings.db_port,
        "user": settings.db_username,
        "dbname": settings.db_database,
        "sslmode": settings.db_ssl_mode,
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "tidegate",
    }
    # Left out when empty, so that libpq looks at its own places (PGPASSFILE).
    if password := settings.db_password.reveal():
        arguments["password"] = password
    if settings.db_charset:
        arguments["client_encoding"] = settings.db_charset
    arguments.update(_extras(settings.db_extras))
    if limited and not through_pgbouncer(settings):
        # pgbouncer refuses start-up options, and a SET would stay on another client's connection
        limit = f"-c statement_timeout={STATEMENT_SECONDS * 1000}"
        arguments["options"] = f"{limit} {arguments.get('options', '')}".strip()
    return arguments


def through_pgbouncer(settings: Settings) -> bool:
    """Whether connections are shared between transactions: no session state may be used."""
    return settings.db_type == "pgbouncer"


def is_read_only(error: BaseException | None) -> bool:
    """Whether the server takes no writes for now, as a standby does in the middle of a fail-over.

    psycopg2 files that under InternalError, beside mistakes of whoever wrote the statement.
    """
    return isinstance(error, pg_errors.ReadOnlySqlTransaction)


def create_database(settings: Settings) -> bool:
    """Create DB_DATABASE from DB_DEFAULT_DATABASE when it is missing; True when it was made.

    psycopg2.OperationalError when the server cannot be reached that way either.
    """
    arguments = connect_arguments(settings, limited=False)
    connection = psycopg2.connect(**{**arguments, "dbname": settings.db_default_database})
    try:
        connection.autocommit = True  # CREATE DATABASE refuses a transaction
        return _create_if_missing(connection, settings.db_database)
    finally:
        connection.close()


def _create_if_missing(connection: extensions.connection, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone():
            return False
        try:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except (pg_errors.DuplicateDatabase, pg_errors.UniqueViolation):
            return False  # another process was faster
        return True


def _extras(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        return dict(extensions.parse_dsn(text))
    except psycopg2.ProgrammingError as error:
        raise SettingInvalid(f"DB_EXTRAS cannot be read: {str(error).strip()}") from None
