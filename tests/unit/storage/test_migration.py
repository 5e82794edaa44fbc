"""Migrations: from nothing, from a reference daemon's database, twice, at once, and back."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from tests.patience import patience
from tests.runtime.processes import Program
from tests.unit.storage import reference_database
from tests.unit.storage.conftest import Databases
from tidegate.errors import StartRefused
from tidegate.settings import Settings
from tidegate.storage import (
    Database,
    declarations,
    generation,
    install_tasks,
    installations,
    is_current,
    migrate,
)
from tidegate.storage.migrations import HEAD, VERSION_TABLE
from tidegate.storage.tables import metadata

SCRIPTS = Path(migrate.__code__.co_filename).parent / "migrations"


@pytest.fixture
def empty(databases: Databases, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a database without tables."""
    (tmp_path / "home").mkdir()
    with databases.empty(tmp_path / "home") as settings:
        yield settings


@pytest.fixture
def old(empty: Settings) -> tuple[Settings, dict[str, int]]:
    """A reference daemon's database, and how many rows its tables have."""
    database = Database(empty)
    with database.write() as conn:
        rows = reference_database.create(conn)
    database.dispose()
    return empty, rows


@pytest.fixture
def adopted(old: tuple[Settings, dict[str, int]]) -> Iterator[Database]:
    """That database, migrated."""
    assert migrate(old[0])
    database = Database(old[0])
    yield database
    database.dispose()


def test_an_empty_database_gets_exactly_the_tables_of_the_code(empty: Settings) -> None:
    assert migrate(empty)
    database = Database(empty)
    with database.read() as conn:
        options = {"version_table": VERSION_TABLE, "compare_server_default": True}
        context = MigrationContext.configure(conn, opts=options)
        assert compare_metadata(context, metadata) == []
        assert generation.current(conn) == 1
    database.dispose()


def test_the_second_time_is_quick_and_changes_nothing(empty: Settings) -> None:
    assert migrate(empty)
    started = time.perf_counter()
    assert not migrate(empty)
    assert time.perf_counter() - started < patience(0.15)


def test_a_current_database_is_known_without_sqlalchemy(settings: Settings) -> None:
    script = (
        "import os, sys\n"
        "from tidegate.settings import Settings\n"
        "from tidegate.storage import migrate\n"
        "assert not migrate(Settings.load(os.environ))\n"
        "sys.exit('sqlalchemy' in sys.modules or 'alembic' in sys.modules)"
    )
    environ = {**os.environ, **_environ(settings)}
    with closing(Program([sys.executable, "-c", script], environ)) as program:
        assert program.wait() == 0, program.text


def test_two_processes_at_once_migrate_once(empty: Settings) -> None:
    script = (
        "import os\n"
        "from tidegate.settings import Settings\n"
        "from tidegate.storage import migrate\n"
        "print('did' if migrate(Settings.load(os.environ)) else 'did not')"
    )
    command = [sys.executable, "-c", script]
    environ = {**os.environ, **_environ(empty)}
    with closing(Program(command, environ)) as one, closing(Program(command, environ)) as two:
        assert (one.wait(), two.wait()) == (0, 0), one.text + two.text
    assert is_current(empty)


def _environ(settings: Settings) -> dict[str, str]:
    found = {"TIDEGATE_HOME": settings.tidegate_home}
    if settings.db_type:
        found |= {
            "DB_TYPE": settings.db_type,
            "DB_HOST": settings.db_host,
            "DB_PORT": str(settings.db_port),
            "DB_USERNAME": settings.db_username,
            "DB_DATABASE": settings.db_database,
        }
    return found


def test_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_reference_database_loses_no_row(
    old: tuple[Settings, dict[str, int]], adopted: Database
) -> None:
    with adopted.read() as conn:
        kept = {name: reference_database.count(conn, name) for name in old[1]}
        aside = conn.execute(text('SELECT table_name, "row" FROM tidegate_set_aside')).all()
    assert kept == {**old[1], "plugins": old[1]["plugins"] - 1}
    assert [name for name, _ in aside] == ["plugins"]
    assert json.loads(aside[0][1])["refers"] == 2
    assert json.loads(aside[0][1])["plugin_unique_identifier"] == reference_database.WEATHER


def test_a_reference_database_gets_what_it_lacked(adopted: Database) -> None:
    with adopted.read() as conn:
        inspector = inspect(conn)
        unique = {
            index["name"]
            for table in ("plugins", "plugin_installations")
            for index in inspector.get_indexes(table)
            if index["unique"]
        }
        columns = {column["name"]: column for column in inspector.get_columns("plugins")}
        endpoint = {one["name"]: one for one in inspector.get_columns("endpoints")}
        missing = set(metadata.tables) - set(inspector.get_table_names())
    assert {"idx_plugin_unique_identifier", "idx_tenant_plugin"} <= unique
    assert columns["declaration"]["nullable"], "a legacy column must not refuse our rows"
    assert {"source", "remote_declaration"} <= set(columns)
    assert "name" in endpoint
    assert missing == set()


def test_D_60_a_long_plugin_id_fits_an_endpoint(adopted: Database) -> None:
    with adopted.write() as conn:
        conn.execute(
            text("UPDATE endpoints SET plugin_id = :id"), {"id": "a" * 64 + "/" + "b" * 128}
        )


def test_a_reference_database_can_be_worked_with(adopted: Database) -> None:
    tenant, weather = reference_database.TENANT, reference_database.WEATHER
    with adopted.read() as conn:
        rows, total = installations.page(conn, tenant, 0, 10)
        tasks, _ = install_tasks.page(conn, tenant, 0, 10)
        refers = conn.execute(text("SELECT plugin_id, refers FROM plugins ORDER BY 1")).all()
    assert total == 2
    assert [row.meta for row in rows] == [{}, {}], "null reads as an object (D-12)"
    assert tasks[0].plugins[0].identifier == weather
    assert [tuple(row) for row in refers] == [("acme/clock", 1), ("acme/weather", 1)]

    other = "0198c5d2-0000-7000-8000-00000000000b"
    declaration = '{"tool":{"identity":{"name":"weather"}}}'
    with adopted.write() as conn:
        installations.install(conn, other, weather, declaration, source="package")
        found = installations.find(conn, tenant, "acme/weather")
        assert found is not None
        gone = installations.uninstall(conn, tenant, found.id)
        assert gone is not None
        assert not gone.last_reference
        assert declarations.get(conn, weather) is not None


def test_T_H7_down_keeps_the_reference_tables_and_up_works_again(
    old: tuple[Settings, dict[str, int]], adopted: Database
) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    with adopted.write() as conn:
        config.attributes["connection"] = conn
        command.downgrade(config, "base")
    with adopted.read() as conn:
        left = set(inspect(conn).get_table_names())
        assert reference_database.count(conn, "plugin_installations") == 2
    assert not [name for name in left if name.startswith("tidegate_") and name != VERSION_TABLE]
    assert migrate(old[0])
    assert is_current(old[0])


def test_T_H7_a_newer_database_still_serves(settings: Settings, database: Database) -> None:
    with database.write() as conn:
        conn.execute(text("UPDATE tidegate_schema SET version_num = '9999'"))
    assert not migrate(settings)


def test_a_failed_migration_changes_nothing_and_says_why_in_one_line(empty: Settings) -> None:
    database = Database(empty)
    with database.write() as conn:  # takes the name of a table that is made late
        conn.execute(text("CREATE VIEW tidegate_set_aside AS SELECT 1 AS id"))
    with pytest.raises(StartRefused, match="tidegate_set_aside") as raised:
        migrate(empty)
    assert "\n" not in raised.value.message
    with database.read() as conn:
        assert inspect(conn).get_table_names() == []
    database.dispose()
