"""A house with everything below the doors but the host, which follows a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from gevent import GreenletExit
from sqlalchemy import text

from tests.databases import Databases
from tests.patience import wait_until
from tests.unit.storage.conftest import databases
from tidegate.clock import SYSTEM_CLOCK
from tidegate.installs import (
    Catalogue,
    InstallAnswer,
    Installer,
    InstallState,
    JobRunner,
    retire_job,
)
from tidegate.installs.run import no_fail_point
from tidegate.installs.shelf import Shelf
from tidegate.jobs import Owners
from tidegate.packages import build_package, open_package
from tidegate.settings import Settings
from tidegate.storage import Database, install_tasks, installations, job_rows
from tidegate.storage.blobs import open_blobs
from tidegate.storage.install_tasks import Task, TaskEntry
from tidegate.storage.installations import Installation
from tidegate.testing.host_control import ScriptedHost
from tidegate.testing.job_sender import InProcessSender

__all__ = ["databases"]  # a fixture, by its name

HELLO = Path(__file__).parents[3] / "examples" / "hello"
TENANT = "0198c5d2-0000-7000-8000-000000000001"
OTHER = "0198c5d2-0000-7000-8000-000000000002"


class Killed(GreenletExit):
    """What a test throws at a fail point: nothing of ours catches it, as nothing catches -9."""


@cache
def package(version: str = "0.0.1") -> bytes:
    """The sample plugin in some version."""
    manifest = (HELLO / "manifest.yaml").read_text("utf-8").replace("0.0.1", version)
    return build_package(HELLO, extra={"manifest.yaml": manifest.encode()})


@cache
def identifier(version: str = "0.0.1") -> str:
    """Its unique identifier."""
    return str(open_package(package(version), limit=1 << 26).identifier)


class House:
    """Everything that installs needs, wired as api and worker wire it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.blobs = open_blobs(settings)
        self.shelf = Shelf(settings, self.blobs)
        self.host = ScriptedHost()
        self.sender = InProcessSender()
        self.owners = Owners(settings.home.run / "workers")
        self.catalogue = Catalogue(self.database)
        self.installer = Installer(
            settings, self.database, self.blobs, self.sender, catalogue=self.catalogue
        )
        self.new_worker()

    def new_worker(self, fail_point: Callable[[InstallState, bool], None] = no_fail_point) -> None:
        """As after a restart: another owner, nothing in memory."""
        self.sender.runner = JobRunner(
            self.settings,
            self.database,
            self.blobs,
            self.host,
            self.sender,
            self.owners,
            fail_point=fail_point,
        )

    def until_held(self, place: str) -> None:
        """Until the host is where ``host.held(place)`` stops it."""
        wait_until(lambda: self.host.waiting[place])

    def until_jobs(self, name: str, jobs: int) -> None:
        """Until so many wait for one build; who comes after it has one of its own, rightly."""
        running = self.worker._builds._running
        wait_until(lambda: name in running and running[name].users == jobs)

    @property
    def worker(self) -> JobRunner:
        assert self.sender.runner is not None
        return self.sender.runner

    def upload(self, version: str = "0.0.1") -> str:
        self.installer.upload(TENANT, package(version), False)
        return identifier(version)

    def install(self, name: str, tenant: str = TENANT) -> InstallAnswer:
        return self.installer.install(tenant, [name], "package", [{}])

    def installed(self, version: str = "0.0.1", tenant: str = TENANT) -> str:
        """Upload and install to the end."""
        name = self.upload(version)
        answer = self.install(name, tenant)
        self.sender.join()
        assert answer.all_installed or self.task(answer, tenant).status == "success"
        return name

    def task(self, answer: InstallAnswer, tenant: str = TENANT) -> Task:
        with self.database.read() as conn:
            found = install_tasks.get(conn, tenant, answer.task_id)
        assert found is not None
        return found

    def entry(self, answer: InstallAnswer, tenant: str = TENANT) -> TaskEntry:
        [entry] = self.task(answer, tenant).plugins
        return entry

    def row(self, tenant: str = TENANT) -> Installation | None:
        with self.database.read() as conn:
            return installations.find(conn, tenant, "tidegate/hello")

    def open_jobs(self) -> list[job_rows.JobRow]:
        """All that the schedule would find if their workers died now."""
        with self.database.read() as conn:
            return job_rows.abandoned(conn, SYSTEM_CLOCK.now() + timedelta(days=1))

    def let_leases_end(self) -> None:
        """The time that a dead worker's jobs are still its own passes."""
        with self.database.write() as conn:
            conn.execute(text("update tidegate_jobs set lease_from = 0, lease_until = 0"))

    def settle(self) -> None:
        """Run jobs until none is open, as worker and schedule would in time."""
        self.sender.join()
        for _ in range(20):
            if not self.open_jobs():
                return
            self.let_leases_end()
            self.worker.resume_abandoned()
            self.sender.join()
        raise AssertionError(f"jobs stay open: {self.open_jobs()}")

    def close(self) -> None:
        self.sender.join()
        self.catalogue.close()
        self.installer.close()
        self.owners.close()
        self.database.dispose()


@pytest.fixture(autouse=True)
def no_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to hear of a change before a version is stopped."""
    monkeypatch.setattr(retire_job, "SETTLE", 0.0)


@pytest.fixture
def settings(databases: Databases, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a migrated database of this test's own; nothing is signed."""
    # T-I5's build of twenty minutes is longer than the default allows.
    given = {"FORCE_VERIFYING_SIGNATURE": "false", "PLUGIN_INSTALL_TIMEOUT": "30"}
    with databases.migrated(tmp_path / "home", **given) as found:
        yield found


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    """A house on each database in turn."""
    house = House(settings)
    yield house
    house.close()
