"""Installations whose lock ends under them (T-I5); their other faults stand beside the jobs."""

from __future__ import annotations

import gevent
import pytest

from tests.unit.installs.conftest import (
    House,
    databases,
    house,
    no_other_processes,
    settings,
)
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
