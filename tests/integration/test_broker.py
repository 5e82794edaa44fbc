"""Real Celery workers on our brokers: killed at any moment they lose no job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.servers import RedisServer, redis_fixture  # noqa: F401 - a fixture, by its name
from tidegate.errors import BrokerUnavailable
from tidegate.jobs import INSTALLS, Sender, celery_settings
from tidegate.jobs.queue_file import QueueFile
from tidegate.settings import Settings

pytestmark = [
    pytest.mark.limit(120, "starts Celery workers, each takes seconds on a small machine"),
    pytest.mark.blocks_hub("starts processes"),
]

CONCURRENCY = 3


class Bench:
    """One broker, its workers and the file that their tasks write to."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = {"TIDEGATE_HOME": str(folder), "BROKER_APP_VISIBILITY": "4", **environ}
        self.settings = Settings.load(self.environ)
        self.notes = folder / "notes"
        self.notes.touch()
        self.app = Celery("test-sender", set_as_current=False)
        self.app.conf.update(celery_settings(self.settings))
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self, name: str = "w") -> subprocess.Popen[bytes]:
        """Start a worker; it is killed at the test's end, if not earlier."""
        number = len(self._workers)
        command = [
            *(sys.executable, "-m", "celery", "-A", "broker_app.app", "worker", "-P", "gevent"),
            *("-c", str(CONCURRENCY), "-n", f"{name}{number}@test", "--loglevel", "warning"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        with (self.folder / f"{name}{number}.log").open("wb") as log:
            worker = subprocess.Popen(
                command,
                env={**os.environ, **self.environ, "PYTHONWARNINGS": "ignore"},
                cwd=Path(__file__).parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._workers.append(worker)
        return worker

    def send(self, task: str, line: str, **options: Any) -> Any:
        return self.app.send_task(task, (str(self.notes), line), queue=INSTALLS, **options)

    def lines(self) -> list[str]:
        return self.notes.read_text().splitlines()

    def wait(self, what: Callable[[], bool], seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while not what():
            if time.monotonic() > limit:
                logs = "\n".join(path.read_text() for path in self.folder.glob("w*.log"))
                raise AssertionError(f"not in {seconds} s; notes: {self.lines()}\n{logs}")
            time.sleep(0.02)

    def let_go(self) -> None:
        Path(f"{self.notes}.go").touch()

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        self.app.pool.force_close_all()
        self.app.close()
        for file in list(QueueFile._open.values()):
            file.close()


@contextmanager
def _bench(folder: Path, environ: dict[str, str]) -> Iterator[Bench]:
    bench = Bench(folder, environ)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path, {}) as bench:
        yield bench


@pytest.fixture
def on_redis(tmp_path: Path, redis: RedisServer) -> Iterator[Bench]:
    environ = {**redis.environ, "REDIS_KEY_PREFIX": tmp_path.name}
    with _bench(tmp_path, environ) as bench:
        yield bench


@pytest.fixture
def on_amqp(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path, {"CELERY_BROKER_URL": os.environ["TIDEGATE_TEST_AMQP"]}) as bench:
        yield bench


def lose_nothing(bench: Bench) -> None:
    """Running, prefetched, queued and ETA tasks of a killed worker all end, each once."""
    worker = bench.worker()
    held = [f"held{number}" for number in range(CONCURRENCY)]
    queued = [f"queued{number}" for number in range(12)]
    for line in held:
        bench.send("hold", line)
    bench.wait(lambda: len(bench.lines()) == CONCURRENCY)
    bench.send("note", "later", countdown=2)
    for line in queued:
        bench.send("note", line)
    time.sleep(0.5)  # no event tells what a worker has prefetched; any moment is a fair one
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not [line for line in bench.lines() if line.startswith("end")]
    bench.let_go()
    bench.worker()
    wanted = {f"end {line}" for line in held} | set(queued) | {"later"}
    bench.wait(lambda: wanted <= set(bench.lines()))
    ended = Counter(line for line in bench.lines() if line in wanted)
    assert set(ended.values()) == {1}


def test_a_killed_worker_loses_nothing_on_the_embedded_broker(embedded: Bench) -> None:
    lose_nothing(embedded)


def test_a_killed_worker_loses_nothing_on_redis(on_redis: Bench) -> None:
    lose_nothing(on_redis)


if "TIDEGATE_TEST_AMQP" in os.environ:

    def test_a_killed_worker_loses_nothing_on_rabbitmq(on_amqp: Bench) -> None:
        lose_nothing(on_amqp)


def test_two_workers_that_die_at_once_lose_nothing(embedded: Bench) -> None:
    workers = [embedded.worker(), embedded.worker()]
    lines = [f"held{number}" for number in range(2 * CONCURRENCY)]
    for line in lines:
        embedded.send("hold", line)
    embedded.wait(lambda: len(embedded.lines()) == 2 * CONCURRENCY)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    embedded.let_go()
    embedded.worker()
    embedded.wait(lambda: {f"end {line}" for line in lines} <= set(embedded.lines()))
    ended = Counter(line for line in embedded.lines() if line.startswith("end"))
    assert set(ended.values()) == {1}


def test_a_worker_that_is_told_to_stop_finishes_and_leaves_the_rest(embedded: Bench) -> None:
    worker = embedded.worker()
    for number in range(CONCURRENCY + 2):
        embedded.send("hold", str(number))
    embedded.wait(lambda: len(embedded.lines()) == CONCURRENCY)
    worker.send_signal(signal.SIGTERM)
    embedded.let_go()
    assert worker.wait(timeout=60) == 0
    ended = [line for line in embedded.lines() if line.startswith("end")]
    assert len(ended) >= CONCURRENCY
    embedded.worker()
    wanted = {f"end {number}" for number in range(CONCURRENCY + 2)}
    embedded.wait(lambda: wanted <= set(embedded.lines()))
    ended = [line for line in embedded.lines() if line.startswith("end")]
    assert len(ended) == len(wanted)


def test_ping_and_revoke_reach_a_worker(embedded: Bench) -> None:
    embedded.worker()
    embedded.wait(lambda: bool(embedded.app.control.ping(timeout=1)))
    later = embedded.send("note", "revoked", countdown=1.5)
    embedded.send("note", "before")
    embedded.wait(lambda: "before" in embedded.lines())
    embedded.app.control.revoke(later.id)
    embedded.send("note", "after", countdown=2.5)
    embedded.wait(lambda: "after" in embedded.lines())
    assert "revoked" not in embedded.lines()


def test_a_sender_that_reaches_no_broker_says_so(tmp_path: Path) -> None:
    (tmp_path / "broker.db").mkdir()
    sender = Sender(Settings.load({"TIDEGATE_HOME": str(tmp_path)}))
    with pytest.raises(BrokerUnavailable, match="the broker does not take jobs"):
        sender.send("note", "x")
