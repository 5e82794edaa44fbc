"""Over and over: descriptors, greenlets, children and memory stay where they were (T-R3).

All roles together, under a mixed load: test_soak.py (T-R6).
"""

from __future__ import annotations

import gc
import os

import gevent
import pytest

from tests.faults.acting import install
from tests.faults.sampling import private_memory
from tests.hosting import running_host
from tests.unit.installs.conftest import House, identifier, no_other_processes, package
from tidegate.settings import Settings
from tidegate.storage import migrate

__all__ = ["no_other_processes"]  # a fixture, by its name

SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
pytestmark = pytest.mark.blocks_hub("starts processes, builds packages")


def held() -> dict[str, int]:
    """What this process has open and alive now."""
    gc.collect()
    return {
        "memory": private_memory(os.getpid()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "greenlets": sum(isinstance(one, gevent.Greenlet) and not one.dead for one in _objects()),
    }


def check_flat(before: dict[str, int], after: dict[str, int]) -> None:
    """Two descriptors may be on their way; memory within 2 %, and what a heap breathes."""
    assert after["descriptors"] <= before["descriptors"] + 2
    assert after["greenlets"] <= before["greenlets"] + 2
    assert after["memory"] - before["memory"] < max(0.02 * before["memory"], 2 << 20)


def _objects() -> list[object]:
    return gc.get_objects()


@pytest.mark.stretched
@pytest.mark.limit(1800 if SOAK else 120, "a plugin is restarted again and again")
def test_T_R3_restarts_of_a_plugin_leave_nothing_in_the_host(tmp_path):
    with running_host(tmp_path) as running:
        name = install(running, tmp_path)
        for _ in range(3):
            assert running.control("restart", identifier=name).error is None
        before = held()
        for _ in range(200 if SOAK else 8):
            assert running.control("restart", identifier=name).error is None
            assert running.call(name, "echo", text="on").wait().texts == ["on"]
        gevent.sleep(0.5)
        after = held()
    check_flat(before, after)


@pytest.mark.stretched
@pytest.mark.limit(1800 if SOAK else 120, "a plugin is installed again and again")
def test_T_R3_installs_and_uninstalls_leave_nothing_in_the_worker(tmp_path):
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path), "FORCE_VERIFYING_SIGNATURE": "false"})
    migrate(settings)
    house = House(settings)
    try:
        _rounds(house, 5)
        before = held()
        _rounds(house, 1000 if SOAK else 30)
        after = held()
    finally:
        house.close()
    check_flat(before, after)


def _rounds(house: House, many: int) -> None:
    house.installer.upload("0198c5d2-0000-7000-8000-000000000001", package(), False)
    for _ in range(many):
        house.install(identifier())
        house.settle()
        row = house.row()
        assert row is not None
        house.installer.uninstall(row.tenant, row.id)
        house.settle()
        house.host.calls.clear()
        house.sender.sent.clear()
