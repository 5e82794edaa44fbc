"""Every storage test runs on both databases: fixture ``settings`` and what is built on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycogreen.gevent import patch_psycopg

from tests.servers import PostgresServer
from tidegate.settings import Settings
from tidegate.storage import Database, migrate

TENANT = "0198c5d2-0000-7000-8000-000000000001"
OTHER_TENANT = "0198c5d2-0000-7000-8000-000000000002"

Make = Callable[[], "Settings"]


class Databases:
    """Makes databases of one kind, empty or migrated (a copy of one that was migrated once)."""

    def __init__(self, kind: str, folder: Path, server: PostgresServer | None) -> None:
        self.kind = kind
        self._server = server
        self._template = folder / "template.db"
        self._migrated = ""

    @contextmanager
    def empty(self, home: Path) -> Iterator[Settings]:
        """A database without tables."""
        if self._server is None:
            yield Settings.load({"TIDEGATE_HOME": str(home)})
            return
        with self._server.database() as environ:
            yield Settings.load({"TIDEGATE_HOME": str(home), **environ})

    @contextmanager
    def migrated(self, home: Path) -> Iterator[Settings]:
        """A database with this version's tables."""
        home.mkdir(exist_ok=True)
        if self._server is None:
            settings = Settings.load({"TIDEGATE_HOME": str(home)})
            shutil.copy(self._template, settings.home.database)
            yield settings
            return
        with self._server.database(self._migrated) as environ:
            yield Settings.load({"TIDEGATE_HOME": str(home), **environ})

    @contextmanager
    def template(self, home: Path) -> Iterator[None]:
        """Migrate once; while this lasts :meth:`migrated` copies it."""
        with self.empty(home) as settings:
            migrate(settings)
            self._migrated = settings.db_database
            if self._server is None:
                settings.home.database.rename(self._template)
            yield


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Databases]:
    """Databases of each kind in turn."""
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        patch_psycopg()
    folder = tmp_path_factory.mktemp(f"databases-{request.param}")
    made = Databases(request.param, folder, server)
    with made.template(folder):
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
