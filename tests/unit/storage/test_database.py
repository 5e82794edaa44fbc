"""Transactions: what is committed, what is not, who may write, what an error says."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tidegate.errors import DatabaseUnavailable
from tidegate.settings import Settings
from tidegate.storage import Database, generation


def test_a_write_is_there_after_its_block(database: Database) -> None:
    with database.write() as conn:
        before = generation.bump(conn)
    with database.read() as conn:
        assert generation.current(conn) == before


def test_an_exception_rolls_everything_back(database: Database) -> None:
    with database.read() as conn:
        before = generation.current(conn)

    def fail() -> None:
        with database.write() as conn:
            generation.bump(conn)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.read() as conn:
        assert generation.current(conn) == before


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, DatabaseUnavailable)), database.read() as conn:
        generation.bump(conn)


def test_D_49_an_error_of_the_commit_is_an_error_of_the_block(database: Database) -> None:
    if database.kind == "sqlite":
        create = (
            "CREATE TABLE parent (id integer PRIMARY KEY)",
            "CREATE TABLE child (p integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        )
    else:
        create = (
            "CREATE TABLE parent (id integer PRIMARY KEY)",
            "CREATE TABLE child (p integer REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        )
    with database.write() as conn:
        for statement in create:
            conn.execute(text(statement))
    with pytest.raises(DBAPIError), database.write() as conn:
        conn.execute(text("INSERT INTO child VALUES (7)"))  # only the commit notices
    with database.read() as conn:
        assert conn.execute(text("SELECT count(*) FROM child")).scalar() == 0
    with database.write() as conn:
        generation.bump(conn)  # the connection is usable again


def test_no_database_is_one_clear_error(settings: Settings) -> None:
    nowhere = dataclasses.replace(
        settings,
        tidegate_home=f"{settings.tidegate_home}/missing",
        db_host=settings.db_host and f"{settings.db_host}/missing",
    )
    database = Database(nowhere)
    with pytest.raises(DatabaseUnavailable) as raised, database.read():
        pass
    assert "\n" not in raised.value.message


def test_nothing_connects_before_it_is_used(settings: Settings) -> None:
    Database(settings).dispose()


def test_dispose_can_be_followed_by_use(database: Database) -> None:
    with database.read() as conn:
        generation.current(conn)
    database.dispose()
    with database.read() as conn:
        generation.current(conn)
