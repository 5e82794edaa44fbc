"""Installations through the real worker application, killed with -9 in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.databases import Databases
from tests.servers import RedisServer, redis_fixture  # noqa: F401 - a fixture, by its name
from tests.unit.installs.conftest import OTHER, TENANT, identifier, package
from tidegate.clock import SYSTEM_CLOCK
from tidegate.installs import InstallAnswer, Installer
from tidegate.jobs import UPKEEP, Sender
from tidegate.jobs.queue_file import QueueFile
from tidegate.settings import Settings
from tidegate.storage import Database, install_tasks, installations, job_rows, migrate
from tidegate.storage.blobs import open_blobs
from tidegate.storage.install_tasks import Task
from tidegate.worker import RESUME

pytestmark = [
    pytest.mark.limit(120, "starts Celery workers, each takes seconds on a small machine"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

THIRD = "0198c5d2-0000-7000-8000-000000000003"


class Site:
    """What api does in this process, what the worker does in its own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = {
            "TIDEGATE_HOME": str(folder),
            "FORCE_VERIFYING_SIGNATURE": "false",
            "INSTALL_APP_FOLDER": str(folder),
            **environ,
        }
        self.settings = Settings.load(self.environ)
        migrate(self.settings)
        self.database = Database(self.settings)
        self.sender = Sender(self.settings)
        self.installer = Installer(
            self.settings, self.database, open_blobs(self.settings), self.sender
        )
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "celery", "-A", "install_app.app", "worker", "-P", "gevent"),
            *("--loglevel", "warning", "--without-gossip", "--without-mingle"),
        ]
        with (self.folder / f"worker{len(self._workers)}.log").open("wb") as log:
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

    def install(self, version: str, tenant: str) -> InstallAnswer:
        self.installer.upload(tenant, package(version), False)
        return self.installer.install(tenant, [identifier(version)], "package", [{}])

    def hold(self, step: str) -> Path:
        path = self.folder / f"hold-{step}"
        path.touch()
        return path

    def task(self, answer: InstallAnswer, tenant: str) -> Task:
        with self.database.read() as conn:
            found = install_tasks.get(conn, tenant, answer.task_id)
        assert found is not None
        return found

    def open_jobs(self) -> list[job_rows.JobRow]:
        """All that the schedule would find if their workers died now."""
        with self.database.read() as conn:
            return job_rows.abandoned(conn, SYSTEM_CLOCK.now() + timedelta(days=1))

    def states(self) -> dict[str, str]:
        return {job.key.split(" ")[0]: job.state for job in self.open_jobs()}

    def installed(self, tenant: str) -> str | None:
        with self.database.read() as conn:
            found = installations.find(conn, tenant, "tidegate/hello")
        return found.identifier if found else None

    def resume(self) -> None:
        """What beat sends every ten seconds, after the dead worker's leases ended."""
        with self.database.write() as conn:
            conn.execute(text("update tidegate_jobs set lease_from = 0, lease_until = 0"))
        self.sender.send(RESUME, queue=UPKEEP)

    def wait(self, what: Callable[[], bool], seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while not what():
            if time.monotonic() > limit:
                logs = "\n".join(path.read_text() for path in self.folder.glob("worker*.log"))
                raise AssertionError(f"not in {seconds} s; jobs: {self.states()}\n{logs}")
            time.sleep(0.05)

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        self.sender.close()
        self.database.dispose()
        for file in list(QueueFile._open.values()):
            file.close()


@contextmanager
def _site(folder: Path, environ: dict[str, str]) -> Iterator[Site]:
    site = Site(folder, environ)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Site]:
    with _site(tmp_path, {}) as site:
        yield site


@pytest.fixture
def on_servers(tmp_path: Path, redis: RedisServer, copies: Databases) -> Iterator[Site]:
    with copies.copied() as database:
        environ = {**database, **redis.environ, "REDIS_KEY_PREFIX": tmp_path.name}
        with _site(tmp_path, environ) as site:
            yield site


def killed_in_the_middle(site: Site) -> None:
    """Three installations, each at another step, when their worker is killed."""
    worker = site.worker()
    wanted = {TENANT: "0.0.1", OTHER: "0.0.2", THIRD: "0.0.3"}
    answers = {}
    for (tenant, version), step in zip(
        wanted.items(), ("start", "environment", "unpack"), strict=True
    ):
        site.hold(step)
        answers[tenant] = site.install(version, tenant)
        state = {"unpack": "resolving", "environment": "building", "start": "probing"}[step]
        site.wait(lambda: site.states().get(identifier(version)) == state)  # noqa: B023
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    for tenant in wanted:
        assert site.installed(tenant) is None
        assert site.task(answers[tenant], tenant).status == "running"
    for path in site.folder.glob("hold-*"):
        path.unlink()
    site.worker()
    site.resume()
    site.wait(lambda: not site.states())
    for tenant, version in wanted.items():
        assert site.installed(tenant) == identifier(version)
        task = site.task(answers[tenant], tenant)
        assert (task.status, task.completed_plugins) == ("success", 1)


def test_T_I1_installs_survive_their_worker_on_the_embedded_broker(embedded: Site) -> None:
    killed_in_the_middle(embedded)


def test_T_I1_installs_survive_their_worker_on_postgresql_and_redis(on_servers: Site) -> None:
    killed_in_the_middle(on_servers)


def test_a_worker_that_is_told_to_stop_leaves_a_long_install_within_seconds(
    embedded: Site,
) -> None:
    worker = embedded.worker()
    hold = embedded.hold("environment")
    answer = embedded.install("0.0.1", TENANT)
    embedded.wait(lambda: embedded.states().get(identifier()) == "building")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    [job] = embedded.open_jobs()
    assert job.owner is None
    hold.unlink()
    embedded.worker()
    embedded.resume()
    embedded.wait(lambda: embedded.task(answer, TENANT).status == "success")
