"""How PostgreSQL is reached: any password, any database name, pgbouncer, time-outs, restarts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import gevent
import psycopg2
import pytest
from psycogreen.gevent import patch_psycopg
from sqlalchemy import text

from tests.servers import PostgresServer
from tidegate.errors import DatabaseUnavailable, SettingInvalid, StartRefused
from tidegate.settings import Secret, Settings
from tidegate.storage import Database, generation, is_current, migrate
from tidegate.storage.postgresql import connect_arguments

AWKWARD = 'it\'s a "pass\\word" = with spaces '


@pytest.fixture
def settings(postgres: PostgresServer, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty PostgreSQL database."""
    patch_psycopg()
    with postgres.database() as environ:
        yield Settings.load({"TIDEGATE_HOME": str(tmp_path), **environ})


def _load(settings: Settings, **changes: object) -> Settings:
    return dataclasses.replace(settings, **changes)


def _select_one(settings: Settings) -> object:
    database = Database(settings)
    try:
        with database.read() as conn:
            return conn.execute(text("SELECT 1")).scalar()
    finally:
        database.dispose()


def test_D_61_a_password_with_quotes_and_spaces_arrives_whole(settings: Settings) -> None:
    arguments = connect_arguments(_load(settings, db_password=Secret(AWKWARD)))
    dsn = psycopg2.extensions.make_dsn(**arguments)
    assert psycopg2.extensions.parse_dsn(dsn)["password"] == AWKWARD
    assert _select_one(_load(settings, db_password=Secret(AWKWARD))) == 1


def test_a_missing_database_is_created_whatever_its_name(
    postgres: PostgresServer, settings: Settings
) -> None:
    name = f'Tide "gate" {uuid4()}'
    missing = _load(settings, db_database=name)
    quoted = name.replace('"', '""')
    try:
        assert not is_current(missing)
        assert migrate(missing)
        assert is_current(missing)
    finally:
        postgres.execute(f'DROP DATABASE IF EXISTS "{quoted}"')


def test_what_cannot_be_reached_is_one_line_without_the_password(settings: Settings) -> None:
    nowhere = _load(settings, db_host="/nowhere", db_password=Secret(AWKWARD))
    with pytest.raises(StartRefused) as raised:
        migrate(nowhere)
    assert "\n" not in raised.value.message
    assert "DB_HOST" in raised.value.message
    assert "pass" not in raised.value.message.replace("DB_PASSWORD", "")


def test_extras_and_charset_reach_the_server(settings: Settings) -> None:
    database = Database(
        _load(settings, db_extras="options='-c search_path=extra'", db_charset="LATIN1")
    )
    with database.read() as conn:
        assert conn.execute(text("SHOW search_path")).scalar() == "extra"
        assert conn.execute(text("SHOW client_encoding")).scalar() == "LATIN1"
        assert conn.execute(text("SHOW statement_timeout")).scalar() == "30s"
    database.dispose()


def test_extras_that_cannot_be_read_are_named(settings: Settings) -> None:
    with pytest.raises(SettingInvalid, match="DB_EXTRAS"):
        connect_arguments(_load(settings, db_extras="options='x"))


def test_through_pgbouncer_nothing_stays_on_a_connection(settings: Settings) -> None:
    shared = _load(settings, db_type="pgbouncer")
    assert migrate(shared)
    assert "options" not in connect_arguments(shared)
    database = Database(shared)
    with database.write() as conn:
        generation.bump(conn)
    with database.read() as conn:
        assert generation.current(conn) == 2
        assert conn.execute(text("SHOW transaction_read_only")).scalar() == "on"
    with database.write() as conn:
        assert conn.execute(text("SHOW transaction_read_only")).scalar() == "off"


def test_T_H3_a_write_to_a_server_that_takes_none_is_an_outage_and_no_defect(
    settings: Settings,
) -> None:
    migrate(settings)
    database = Database(settings)

    def write_to_a_standby() -> None:
        with database.write() as conn:
            conn.execute(text("SET TRANSACTION READ ONLY"))
            generation.bump(conn)

    with pytest.raises(DatabaseUnavailable, match="read-only") as told:
        write_to_a_standby()
    assert told.value.details == {"reason": "read_only"}
    with database.write() as conn:
        assert generation.bump(conn) == 2, "the connection is whole again"
    database.dispose()


def test_the_pool_is_as_large_as_the_settings_say(settings: Settings) -> None:
    database = Database(_load(settings, db_max_idle_conns=1, db_max_open_conns=3))
    pids = set()
    most = 0
    inside = 0

    def work() -> None:
        nonlocal inside, most
        with database.read() as conn:
            inside += 1
            most = max(most, inside)
            pids.add(conn.execute(text("SELECT pg_backend_pid() FROM pg_sleep(0.02)")).scalar())
            inside -= 1

    gevent.joinall([gevent.spawn(work) for _ in range(9)], raise_error=True)
    assert most == 3
    database.dispose()


def test_a_call_that_gave_up_leaves_no_broken_connection(settings: Settings) -> None:
    database = Database(_load(settings, db_max_open_conns=1))

    def wait() -> None:
        with database.write() as conn:
            conn.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        wait()
    with database.read() as conn:
        assert conn.execute(text("SELECT 1")).scalar() == 1
    database.dispose()


def test_T_H3_a_restarted_server_costs_no_error(
    postgres: PostgresServer, settings: Settings
) -> None:
    database = Database(settings)
    with database.read() as conn:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar()
    postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    with database.read() as conn:
        assert conn.execute(text("SELECT pg_backend_pid()")).scalar() != pid
    database.dispose()


def test_T_H3_an_empty_pool_is_one_clear_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.storage.database.POOL_PATIENCE", 0.05)
    database = Database(_load(settings, db_max_idle_conns=1, db_max_open_conns=1))

    def hold() -> None:
        with database.read() as conn:
            conn.execute(text("SELECT pg_sleep(0.3)"))

    holding = gevent.spawn(hold)
    gevent.sleep(0)
    with pytest.raises(DatabaseUnavailable, match="no free database connection"):
        _read(database)
    holding.join()
    _read(database)
    database.dispose()


def _read(database: Database) -> None:
    with database.read() as conn:
        conn.execute(text("SELECT 1"))


def test_a_second_migration_waits_for_the_first(
    postgres: PostgresServer, settings: Settings
) -> None:
    """Somebody holds the advisory lock: nothing happens before it is given back."""
    from tidegate.storage.migration import _ADVISORY_KEY

    arguments = {"host": settings.db_host, "port": settings.db_port, "user": settings.db_username}
    with closing(psycopg2.connect(dbname=settings.db_database, **arguments)) as other:
        other.cursor().execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_KEY,))
        second = gevent.spawn(migrate, settings)
        _until_somebody_waits(postgres)
        assert not is_current(settings)
        other.rollback()
    assert second.get()
    assert is_current(settings)


def _until_somebody_waits(postgres: PostgresServer) -> None:
    end = time.monotonic() + 20
    while not postgres.execute("SELECT 1 FROM pg_locks WHERE locktype='advisory' AND NOT granted"):
        assert time.monotonic() < end
        gevent.sleep(0.01)
