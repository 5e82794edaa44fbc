"""PostgreSQL restarts, fails over, dead-locks and is full, under calls and installs (T-H3).

The bar: calls need no database and go on; what does need one is told so or waits within its
budget; and every installation that was accepted comes to its end.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import pytest

from tests.faults.clients import act
from tests.faults.database import OwnPostgres, own_postgres
from tests.hosting import PLUGINS, package_of
from tests.patience import wait_until
from tests.stack import TENANT, Stack, running_stack

ANSWERED_WITHIN = 15.0
"""Seconds: patience for a connection (10 s), and time to connect (5 s)."""
CONNECTIONS = 4

pytestmark = [
    pytest.mark.limit(180, "databases are restarted; a job is resumed when its lease is over"),
    pytest.mark.blocks_hub("starts processes and servers, builds packages"),
]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, redis
) -> Iterator[tuple[Stack, OwnPostgres, Path]]:
    home = tmp_path_factory.mktemp("database")
    with own_postgres() as postgres:
        variables = {
            **postgres.environ,
            **redis.environ,
            "REDIS_KEY_PREFIX": f"tidegate-{uuid.uuid4().hex}",
            "DB_MAX_OPEN_CONNS": str(CONNECTIONS),
        }
        with running_stack(home / "home", **variables) as stack:
            stack.install(package_of(PLUGINS / "misbehave", home))
            assert act(stack, "echo", text="up").texts == ["up"]
            yield stack, postgres, home


@dataclass
class Callers:
    """Short calls and one long stream, all the time; what they came to."""

    errors: list[object] = field(default_factory=list)
    served: int = 0


@contextmanager
def callers(stack: Stack) -> Iterator[Callers]:
    """They begin before and end after; the test fails when one of them was not served."""
    seen, over = Callers(), gevent.event.Event()

    def call() -> None:
        while not over.is_set():
            answer = act(stack, "stream", count=20, pause=0.01)
            if answer.error is None and len(answer.texts) == 20:
                seen.served += 1
            else:
                seen.errors.append(answer.error)

    greenlets = [gevent.spawn(call) for _ in range(4)]
    gevent.sleep(0.3)
    try:
        yield seen
    finally:
        over.set()
        gevent.joinall(greenlets, raise_error=True)
    assert seen.errors == []
    assert seen.served > 10


def begin_installs(stack: Stack, home: Path, *names: str) -> dict[str, str]:
    """Installations of plugins by these names: task ids by plugin."""
    tasks = {}
    for name in names:
        identifier = stack.upload(package_of(PLUGINS / "misbehave", home, name=name))
        asked = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
        tasks[f"tidegate/{name}"] = stack.data("POST", "install/identifiers", asked)["task_id"]
    return tasks


def check_all_installed(stack: Stack, tasks: dict[str, str]) -> None:
    """Every task ends well, every plugin is listed once and can be called."""
    for plugin, task in tasks.items():
        ended = wait_until(lambda task=task: _ended(stack, task), 90)
        assert ended["status"] == "success", ended
        assert act(stack, "echo", plugin, text="here").texts == ["here"]
    rows = stack.data("GET", "list?page=1&page_size=100")["list"]
    for plugin in tasks:
        assert [row["plugin_id"] for row in rows].count(plugin) == 1


def _ended(stack: Stack, task: str) -> dict[str, str] | None:
    """The task when it is over; None also while the database cannot be asked."""
    envelope = listed(stack, f"install/tasks/{task}")
    if envelope["code"] != 0 or envelope["data"]["status"] not in ("success", "failed"):
        return None
    return dict(envelope["data"])


def listed(stack: Stack, path: str = "list?page=1&page_size=100") -> dict[str, object]:
    """A management answer as it is."""
    began = time.monotonic()
    _, raw = stack.ask("GET", f"/plugin/{TENANT}/management/{path}")
    assert time.monotonic() - began < ANSWERED_WITHIN
    return dict(json.loads(raw))


@pytest.mark.leaks("the server that was started again serves the tests that follow")
def test_T_H3_a_restart_under_calls_and_installs_loses_neither(place):
    stack, postgres, home = place
    with callers(stack):
        tasks = begin_installs(stack, home, "restarted1", "restarted2", "restarted3")
        with postgres.stopped():
            told = listed(stack)
            assert told["code"] == -500
            assert "database (postgresql): " in str(told["message"])
            assert act(stack, "echo", text="without").texts == ["without"]
            gevent.sleep(2)
        assert wait_until(lambda: listed(stack)["code"] == 0, 10)
        check_all_installed(stack, tasks)


@pytest.mark.parametrize(
    "sqlstate",
    [
        pytest.param("40P01", id="dead-lock"),
        pytest.param("40001", id="other", marks=pytest.mark.soak),
    ],
)
def test_T_H3_a_dead_lock_costs_an_install_time_and_nothing_else(place, sqlstate):
    stack, postgres, home = place
    postgres.fail_next_writes("tidegate_jobs", 1, sqlstate)
    with callers(stack):
        tasks = begin_installs(stack, home, f"locked{sqlstate.lower()}")
        check_all_installed(stack, tasks)
    assert postgres.failed() > 1


def test_T_H3_an_empty_pool_makes_wait_and_then_serves_everybody(place):
    stack, postgres, home = place
    tasks = begin_installs(stack, home, "waiting")
    [path] = [f"install/tasks/{task}" for task in tasks.values()]
    with callers(stack):
        with postgres.locked("install_tasks"):
            asking = [gevent.spawn(listed, stack, path) for _ in range(4 * CONNECTIONS)]
            gevent.sleep(3)
            early = [one.value for one in asking if one.ready()]
            assert early == [], "nobody is refused before the patience is over"
            assert act(stack, "echo", text="on").texts == ["on"]
        gevent.joinall(asking, raise_error=True)
        assert {one.value["code"] for one in asking} == {0}
        check_all_installed(stack, tasks)


def test_T_H3_a_read_only_fail_over_is_told_and_over_when_it_is(place):
    stack, postgres, home = place
    with callers(stack):
        tasks = begin_installs(stack, home, "failedover")
        postgres.fail_over(read_only=True)
        assert wait_until(lambda: listed(stack)["code"] == 0, 10), "reading goes on"
        gevent.sleep(3)
        postgres.fail_over(read_only=False)
        check_all_installed(stack, tasks)
