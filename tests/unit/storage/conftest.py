"""Every storage test runs on both databases: fixture ``settings`` and what is built on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.databases import Databases, databases_of
from tidegate.settings import Settings
from tidegate.storage import Database

TENANT = "0198c5d2-0000-7000-8000-000000000001"
OTHER_TENANT = "0198c5d2-0000-7000-8000-000000000002"

Make = Callable[[], "Settings"]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Databases]:
    """Databases of each kind in turn."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    folder = tmp_path_factory.mktemp(f"databases-{request.param}")
    with databases_of(request.param, folder, server) as made:
        yield made


@pytest.fixture
def settings(databases: Databases, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a migrated database of this test's own."""
    with databases.migrated(tmp_path / "home") as found:
        yield found


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The :class:`Database` of a migrated database."""
    made = Database(settings)
    yield made
    made.dispose()
