"""How installations ended and how long they took, for /metrics/: once per end, whoever died."""

from __future__ import annotations

import pytest

from tests.unit.installs.conftest import TENANT, House, Killed
from tidegate.errors import PluginStartFailed
from tidegate.installs import InstallState
from tidegate.storage import install_tasks
from tidegate.telemetry import metrics

pytestmark = pytest.mark.blocks_hub("packages are built in the process of the test")


def ended(status: str) -> float:
    """How many installations of the sample plugin ended so, in this process."""
    return metrics.INSTALLATIONS.labels("tidegate/hello", status).value


def measured() -> float:
    """How many of them have a duration."""
    return sum(metrics.INSTALLATION_SECONDS.labels("tidegate/hello").counts)


def test_installations_and_upgrades_are_counted_and_timed(house: House) -> None:
    before = ended("success"), measured()
    first = house.installed()
    second = house.upload("0.0.2")
    house.installer.upgrade(TENANT, first, second, "package", {})
    house.settle()
    assert (ended("success"), measured()) == (before[0] + 2, before[1] + 2)


def test_a_failure_is_counted_as_one(house: House) -> None:
    before = ended("success"), ended("failed")
    name = house.upload()
    house.host.fail("install", PluginStartFailed("no luck"))
    house.install(name)
    house.settle()
    assert (ended("success"), ended("failed")) == (before[0], before[1] + 1)


def test_an_installation_that_was_cancelled_is_neither(house: House) -> None:
    before = ended("success"), ended("failed")
    name = house.upload()
    with house.host.held("install:environment"):
        answer = house.install(name)
        house.until_held("install:environment")
        with house.database.write() as conn:
            assert install_tasks.delete(conn, TENANT, answer.task_id)
        house.sender.join()
    assert (ended("success"), ended("failed")) == before


def test_one_whose_worker_was_killed_in_its_last_step_is_counted_once(house: House) -> None:
    before = ended("success")

    def kill(state: InstallState, committed: bool) -> None:
        if state is InstallState.INSTALLED and not committed:
            raise Killed

    name = house.upload()
    house.new_worker(kill)
    house.install(name)
    house.sender.join()
    assert ended("success") == before
    house.new_worker()
    house.settle()
    assert ended("success") == before + 1
