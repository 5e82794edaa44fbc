"""SQLite's one rule - no greenlet switch inside a write transaction - and what follows from it."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import gevent
import pytest
from gevent.lock import Semaphore
from sqlalchemy import text

from tests.runtime.processes import Program
from tests.unit.storage.conftest import TENANT
from tidegate.errors import DatabaseUnavailable, StartRefused, SwitchedInTransaction
from tidegate.settings import Settings
from tidegate.storage import Database, generation, install_tasks, migrate

WRITER = """
import sys, gevent
from tidegate.settings import Settings
from tidegate.storage import Database, generation

database = Database(Settings.load({"TIDEGATE_HOME": sys.argv[1]}))
def write():
    for _ in range(10):
        with database.write() as conn:
            generation.bump(conn)
        gevent.sleep(0)
gevent.joinall([gevent.spawn(write) for _ in range(25)], raise_error=True)
"""


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> Settings:
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path / "home")})
    migrate(settings)
    return settings


@pytest.fixture
def sqlite(sqlite_settings: Settings) -> Iterator[Database]:
    database = Database(sqlite_settings)
    yield database
    database.dispose()


def _pragma(database: Database, name: str, *, write: bool) -> object:
    with database.write() if write else database.read() as conn:
        return conn.execute(text(f"PRAGMA {name}")).scalar()


@pytest.mark.parametrize("write", [True, False])
def test_settings_are_the_measured_ones(sqlite: Database, write: bool) -> None:
    found = {
        name: _pragma(sqlite, name, write=write)
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
    }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 0,
        "query_only": 0 if write else 1,
    }


def _sleep() -> None:
    gevent.sleep(0.001)


def _let_others_run() -> None:
    gevent.sleep(0)


def _wait_for_a_greenlet() -> None:
    gevent.spawn(int).join()


def _wait_for_a_thread() -> None:
    gevent.get_hub().threadpool.apply(int)


def _wait_for_a_lock() -> None:
    lock = Semaphore(0)
    gevent.spawn(lock.release)
    lock.acquire()


@pytest.mark.parametrize(
    "wait",
    [_sleep, _let_others_run, _wait_for_a_greenlet, _wait_for_a_thread, _wait_for_a_lock],
)
def test_a_switch_in_a_write_transaction_raises_where_it_happens(
    sqlite: Database, wait: Callable[[], None]
) -> None:
    def break_the_rule() -> None:
        with sqlite.write() as conn:
            generation.bump(conn)
            wait()

    with pytest.raises(SwitchedInTransaction) as raised:
        gevent.spawn(break_the_rule).get()
    assert wait.__name__ in [entry.name for entry in raised.traceback]
    with sqlite.read() as conn:
        assert generation.current(conn) == 1, "it was rolled back"


def test_a_swallowed_switch_is_not_committed_either(sqlite: Database) -> None:
    def swallow() -> None:
        with sqlite.write() as conn:
            generation.bump(conn)
            with suppress(SwitchedInTransaction):
                gevent.sleep(0)

    with pytest.raises(SwitchedInTransaction):
        swallow()
    with sqlite.read() as conn:
        assert generation.current(conn) == 1


def test_the_guard_lets_go_at_the_end_of_the_transaction(sqlite: Database) -> None:
    for _ in range(3):
        _bump(sqlite)
        gevent.sleep(0)
        with pytest.raises(KeyError), sqlite.write():
            raise KeyError
        gevent.sleep(0)


def test_a_reader_may_wait(sqlite: Database) -> None:
    with sqlite.read() as conn:
        before = generation.current(conn)
        gevent.sleep(0)
        with sqlite.write() as writing:
            generation.bump(writing)
        assert generation.current(conn) == before, "a reader sees one state"


def test_twenty_greenlets_write_without_locked(sqlite: Database) -> None:
    def work(number: int) -> None:
        for step in range(10):
            with sqlite.write() as conn:
                entry = install_tasks.TaskEntry(f"acme/p{number}:0.0.{step}@{'a' * 64}")
                install_tasks.create(conn, TENANT, [entry])
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(work, number) for number in range(20)], raise_error=True)
    with sqlite.read() as conn:
        _, total = install_tasks.page(conn, TENANT, 0, 1)
    assert total == 200


def test_T_H4_fifty_writers_in_two_processes(sqlite_settings: Settings, sqlite: Database) -> None:
    script = f"import gevent.monkey; gevent.monkey.patch_all()\n{WRITER}"
    command = [sys.executable, "-c", script, sqlite_settings.tidegate_home]
    with closing(Program(command, os.environ)) as one, closing(Program(command, os.environ)) as two:
        assert (one.wait(30), two.wait(30)) == (0, 0), one.text + two.text
    with sqlite.read() as conn:
        assert generation.current(conn) == 1 + 2 * 25 * 10
    wal = sqlite_settings.home.database.with_name("tidegate.db-wal")
    assert not wal.exists() or os.path.getsize(wal) <= 32 << 20


def _bump(database: Database) -> None:
    with database.write() as conn:
        generation.bump(conn)


def test_a_lock_that_stays_is_one_clear_error(
    sqlite: Database, sqlite_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.storage.sqlite.LOCK_PATIENCE", 0.05)
    with closing(sqlite3.connect(sqlite_settings.home.database, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            _bump(sqlite)
    _bump(sqlite)


def test_a_full_disk_is_one_clear_error_and_the_old_rows_stay(sqlite: Database) -> None:
    with sqlite.write() as conn:
        pages = conn.execute(text("PRAGMA page_count")).scalar()
        conn.execute(text(f"PRAGMA max_page_count={pages}"))

    def fill() -> None:
        entry = install_tasks.TaskEntry(f"a/b:0.0.1@{'a' * 64}", message="m" * 1000)
        for _ in range(1000):
            with sqlite.write() as conn:
                generation.bump(conn)
                install_tasks.create(conn, TENANT, [entry] * 50)

    with pytest.raises(DatabaseUnavailable, match="full"):
        fill()
    with sqlite.read() as conn:
        _, total = install_tasks.page(conn, TENANT, 0, 1)
        assert generation.current(conn) == 1 + total


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    settings.home.database.write_bytes(b"this is not SQLite\n" * 100)
    with pytest.raises(StartRefused, match="not a database") as raised:
        migrate(settings)
    assert "\n" not in raised.value.message
