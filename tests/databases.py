"""Databases for tests: of each kind, migrated once and then copied; and both stacks in turn.

* :class:`Databases` - makes databases of one kind; tests of storage/ and installs/ run on each
* fixture ``backend`` (module) - the embedded default, then PostgreSQL and Redis: whoever starts
  the product, or a part of it with a database, takes it and passes ``backend.fresh()`` on

A module's tests run on one backend, then on the other, so that what a module shares is made once
for each. Servers are those of servers.py: one of each kind per test process.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from gevent import monkey
from psycogreen.gevent import patch_psycopg

from tests import servers
from tests.servers import PostgresServer, RedisServer
from tidegate.settings import Settings
from tidegate.storage import migrate

CLOSING = 3.0
"""Seconds within which what used a database has closed its connections."""


class Databases:
    """Makes databases of one kind, empty or migrated (a copy of one that was migrated once)."""

    def __init__(self, kind: str, folder: Path, server: PostgresServer | None) -> None:
        self.kind = kind
        self._server = server
        self._template = folder / "template.db"
        self._migrated = ""

    @contextmanager
    def empty(self, home: Path, **variables: str) -> Iterator[Settings]:
        """A database without tables."""
        if self._server is None:
            yield Settings.load({"TIDEGATE_HOME": str(home), **variables})
            return
        with self._server.database() as environ:
            yield Settings.load({"TIDEGATE_HOME": str(home), **environ, **variables})

    @contextmanager
    def migrated(self, home: Path, **variables: str) -> Iterator[Settings]:
        """A database with this version's tables."""
        home.mkdir(exist_ok=True)
        if self._server is None:
            settings = Settings.load({"TIDEGATE_HOME": str(home), **variables})
            shutil.copy(self._template, settings.home.database)
            yield settings
            return
        with self.copied() as environ:
            yield Settings.load({"TIDEGATE_HOME": str(home), **environ, **variables})

    @contextmanager
    def copied(self) -> Iterator[dict[str, str]]:
        """PostgreSQL only: a migrated database, as the settings that lead to it."""
        assert self._server is not None
        with self._server.database(self._migrated) as environ:
            yield environ

    @contextmanager
    def template(self, home: Path) -> Iterator[None]:
        """Migrate once; while this lasts :meth:`migrated` copies it."""
        with self.empty(home) as settings:
            migrate(settings)
            self._migrated = settings.db_database
            if self._server is None:
                settings.home.database.rename(self._template)
            yield


@contextmanager
def databases_of(kind: str, folder: Path, server: PostgresServer | None) -> Iterator[Databases]:
    """Databases of one kind; without a server they are SQLite's."""
    if server is not None and monkey.is_module_patched("socket"):
        patch_psycopg()
    made = Databases(kind, folder, server)
    with made.template(folder):
        yield made


@pytest.fixture(scope="session", name="copies")
def copies_fixture(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Databases]:
    """PostgreSQL databases with tables, cheap enough for every test to have its own."""
    with databases_of("postgresql", tmp_path_factory.mktemp("copies"), postgres) as made:
        yield made


@dataclass(frozen=True)
class Backend:
    """What a Tidegate stands on; ``kind`` is ``embedded`` or ``servers``."""

    kind: str
    copies: Databases | None = None
    postgres: PostgresServer | None = None
    redis: RedisServer | None = None

    @contextmanager
    def fresh(self, *, migrated: bool = True, ends: bool = True) -> Iterator[dict[str, str]]:
        """A database and a key prefix of somebody's own, as settings; none when embedded.

        The test fails when a connection to it outlives this; ``ends`` off is for a host in the
        test's own process, whose connections end with it.
        """
        if self.copies is None or self.postgres is None or self.redis is None:
            yield {}
            return
        made = self.copies.copied() if migrated else self.postgres.database()
        with made as environ:
            prefix = f"tidegate-{uuid.uuid4().hex}"
            yield {**environ, **self.redis.environ, "REDIS_KEY_PREFIX": prefix}
            if ends:
                _no_connection(self.postgres, environ["DB_DATABASE"])


def _no_connection(server: PostgresServer, database: str) -> None:
    """Idle connections are no leak of the test that opened them, but of their owner they are."""
    ends_at = time.monotonic() + CLOSING
    question = f"SELECT query FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608  ours
    while left := server.execute(question):
        assert time.monotonic() < ends_at, f"connections left open, last query: {left}"
        time.sleep(0.02)


@pytest.fixture(scope="module", params=["embedded", "servers"], name="backend")
def backend_fixture(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The embedded default, then PostgreSQL and Redis."""
    if request.param == "embedded":
        yield Backend("embedded")
        return
    copies, postgres, redis = map(request.getfixturevalue, ("copies", "postgres", "redis"))
    with servers.pooled(postgres, redis):
        yield Backend("servers", copies, postgres, redis)
