"""Installations that are killed inside their states (T-I1), or whose lock ends under them (T-I5).

Between their states, and with other faults, they are killed in tests/unit/installs/test_jobs.py.
"""

from __future__ import annotations

import itertools
import os
import time

import gevent
import pytest

from tests.faults.crashing import Crash, crashing_worker
from tests.unit.installs.conftest import (
    TENANT,
    House,
    databases,
    house,
    no_other_processes,
    settings,
)
from tidegate.errors import EnvironmentFailed
from tidegate.installs import install_job, run, runner
from tidegate.storage import job_rows

__all__ = ["databases", "house", "no_other_processes", "settings"]  # fixtures, by their names

pytestmark = pytest.mark.blocks_hub("packages are built in the process of the test")


def test_T_I5_a_lease_that_ends_under_a_long_build_makes_no_second_result(house: House):
    """The first worker is slow, not dead: a second takes over, and only its result counts."""
    name = house.upload()
    with house.host.held("install:environment") as gate:
        answer = house.install(name)
        gevent.sleep(0.1)
        first = house.worker
        house.let_leases_end()
        house.new_worker()
        assert house.worker.resume_abandoned() == 1
        gevent.sleep(0.1)
        gate.set()
        house.settle()
    assert house.worker is not first
    task = house.task(answer)
    assert (task.status, task.completed_plugins) == ("success", 1)
    row = house.row()
    assert row is not None
    assert row.identifier == name
    with house.database.read() as conn:
        [job] = [job_rows.last_finished(conn, "install", f"{name} {answer.task_id}")]
    assert job is not None
    assert (job.ok, job.fence) == (True, 2), "the one that was taken over changed nothing"
    assert house.open_jobs() == []


SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
LONG = 20 * 60 if SOAK else 3.0
"""Seconds of a build that outlasts its lease many times; in CI the lease is shorter as well."""


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    if not SOAK:
        monkeypatch.setattr(run, "LEASE", 1.5)
        monkeypatch.setattr(runner, "LEASE", 1.5)
        monkeypatch.setattr(run, "RENEW", 0.1)
        monkeypatch.setattr(install_job, "_TICK", 0.05)


def build_for_long(house: House, seconds: float) -> tuple[job_rows.JobRow, int]:
    """The job of an installation whose build takes so long; how often it was taken over.

    All the while a second worker looks for jobs that nobody works on.
    """
    name = house.upload()
    taken = 0
    with house.host.held("install:environment") as gate:
        answer = house.install(name)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not taken:
            gevent.sleep(0.05)
            house.new_worker()
            taken += house.worker.resume_abandoned()
        gate.set()
        house.settle()
    assert house.task(answer).status == "success"
    row = house.row()
    assert row is not None
    assert row.identifier == name
    with house.database.read() as conn:
        job = job_rows.last_finished(conn, "install", f"{name} {answer.task_id}")
    assert job is not None
    return job, taken


@pytest.mark.stretched
@pytest.mark.limit(LONG + 60, "a build that is longer than many leases")
@pytest.mark.usefixtures("short_leases")
def test_T_I5_a_build_that_outlasts_its_lease_many_times_stays_with_its_worker(
    house: House,
) -> None:
    seconds = LONG if house.settings.database_kind == "sqlite" else max(3.0, LONG / 10)
    job, taken = build_for_long(house, seconds)
    assert (job.ok, job.fence, taken) == (True, 1, 0)
    assert house.host.count("install") == 1


@pytest.mark.usefixtures("short_leases")
def test_T_I5_a_worker_that_does_not_renew_its_lease_loses_its_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard's own test: the same build without signs of life is another worker's."""
    monkeypatch.setattr(run, "LEASE", 1.0)
    monkeypatch.setattr(runner, "LEASE", 1.0)
    monkeypatch.setattr(run, "RENEW", 3600.0)
    job, taken = build_for_long(house, 30.0)
    assert (job.ok, job.fence, taken) == (True, 2, 1)


# --------------------------------------------------------------------------- T-I1


class Case:
    """One operation that is killed, then what must be true, whenever that was."""

    def __init__(self, house: House, nth: int) -> None:
        self.house = house
        self.prepare()
        self.crash = Crash(nth)
        house.sender.runner = crashing_worker(house, self.crash)
        self.begin()
        house.sender.join()
        self.check_now()
        house.new_worker()
        house.settle()
        self.check_end()
        assert house.open_jobs() == []
        self.clean()

    def prepare(self) -> None:
        self.name = self.house.upload()

    def begin(self) -> None:
        self.answer = self.house.install(self.name)

    def status(self) -> str:
        return self.house.task(self.answer).status

    def check_now(self) -> None:
        """Absent or installed, and the task says which."""
        installed = self.house.row() is not None
        assert (self.status() == "success") == installed, self.crash.places

    def check_end(self) -> None:
        row = self.house.row()
        assert row is not None
        assert row.identifier == self.name
        assert self.status() == "success"
        assert self.house.shelf.is_marked_installed(self.name)

    def clean(self) -> None:
        self.house.new_worker()
        row = self.house.row()
        if row is not None:
            self.house.installer.uninstall(TENANT, row.id)
            self.house.settle()


class Failing(Case):
    def prepare(self) -> None:
        super().prepare()
        # Whoever goes on with it finds the same: nobody has that version.
        self.house.host.fail("install", *[EnvironmentFailed("no such version")] * 3)

    def check_now(self) -> None:
        assert self.house.row() is None
        assert self.status() in ("running", "pending", "failed")

    def check_end(self) -> None:
        assert self.house.row() is None
        assert self.status() == "failed"
        assert self.house.host.calls[-1][0] == "remove"
        assert not self.house.shelf.is_marked_installed(self.name)

    def clean(self) -> None:
        self.house.host.forgive("install")


class Upgrade(Case):
    def prepare(self) -> None:
        self.old = self.house.installed()
        self.name = self.house.upload("0.0.2")

    def begin(self) -> None:
        self.answer = self.house.installer.upgrade(TENANT, self.old, self.name, "package")

    def check_now(self) -> None:
        row = self.house.row()
        assert row is not None
        upgraded = self.status() == "success"
        assert row.identifier == (self.name if upgraded else self.old), self.crash.places

    def check_end(self) -> None:
        super().check_end()
        assert not self.house.shelf.is_marked_installed(self.old)


class Removal(Case):
    def prepare(self) -> None:
        self.name = self.house.installed()

    def begin(self) -> None:
        row = self.house.row()
        assert row is not None
        self.house.installer.uninstall(TENANT, row.id)

    def check_now(self) -> None:
        assert self.house.row() is None

    def check_end(self) -> None:
        assert self.house.row() is None
        assert self.house.host.calls[-1] == ("remove", {"identifier": self.name})
        assert not self.house.shelf.is_marked_installed(self.name)


@pytest.mark.stretched
@pytest.mark.limit(120, "an operation for every effect that it has")
@pytest.mark.parametrize(
    ("case", "least"), [(Case, 24), (Failing, 18), (Upgrade, 35), (Removal, 12)]
)
def test_T_I1_whatever_a_worker_was_about_to_do_when_it_was_killed(
    house: House, case: type[Case], least: int
) -> None:
    """Each effect of each state in turn; without soak every third, and on PostgreSQL fewer."""
    start, step = (1, 1) if SOAK else (1, 3) if house.settings.database_kind == "sqlite" else (2, 8)
    for nth in itertools.count(start, step):
        done = case(house, nth)
        if not done.crash.reached:
            break
    assert nth > least
