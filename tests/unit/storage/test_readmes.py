"""Readmes: which language is given, and that they go with their version."""

from __future__ import annotations

import gevent
import pytest

from tests.unit.storage.conftest import TENANT
from tidegate.storage import Database, installations, readmes

WEATHER = f"acme/weather:0.0.1@{'a' * 64}"
CONTENTS = {"en_US": "# Weather", "ja_JP": "# 天気", "zh_Hans": "# 天气"}


@pytest.mark.parametrize(
    ("asked", "given"), [("ja_JP", "ja_JP"), ("pt_BR", "en_US"), ("", "en_US")]
)
def test_the_language_asked_for_else_english(database: Database, asked: str, given: str) -> None:
    with database.write() as conn:
        readmes.put(conn, WEATHER, CONTENTS)
    with database.read() as conn:
        found = readmes.get(conn, WEATHER, asked)
    assert found == readmes.Readme(given, CONTENTS[given])


def test_any_language_when_there_is_no_english_one(database: Database) -> None:
    with database.write() as conn:
        readmes.put(conn, WEATHER, {"zh_Hans": "z", "ja_JP": "j"})
        assert readmes.get(conn, WEATHER, "de_DE") == readmes.Readme("ja_JP", "j")
        assert readmes.get(conn, f"acme/clock:0.0.1@{'b' * 64}") is None


def test_what_no_column_takes_is_left_out(database: Database) -> None:
    with database.write() as conn:
        readmes.put(conn, WEATHER, {"xx_Unheardof": "x", "en_US": "nul \0 inside"})
        assert readmes.get(conn, WEATHER, "xx_Unheardof") == readmes.Readme("en_US", "nul  inside")


def test_two_that_put_at_once_keep_one_of_each(database: Database) -> None:
    def put(_: int) -> None:
        with database.write() as conn:
            readmes.put(conn, WEATHER, CONTENTS)

    gevent.joinall([gevent.spawn(put, number) for number in range(4)], raise_error=True)
    with database.read() as conn:
        rows = conn.exec_driver_sql("SELECT language FROM plugin_readme_records").all()
    assert sorted(row[0] for row in rows) == sorted(CONTENTS)


def test_D_44_the_last_uninstall_takes_them(database: Database) -> None:
    with database.write() as conn:
        made = installations.install(conn, TENANT, WEATHER, "{}", source="package")
        readmes.put(conn, WEATHER, CONTENTS)
        installations.uninstall(conn, TENANT, made.installation.id)
        assert readmes.get(conn, WEATHER) is None
