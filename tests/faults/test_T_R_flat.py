"""Over and over: descriptors, greenlets, children and memory stay where they were (T-R3, T-R6)."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import gevent
import pytest

from tests.faults.acting import install
from tests.hosting import PLUGINS, package_of, running_host
from tests.stack import running_stack
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
        "descriptors": len(os.listdir("/proc/self/fd")),
        "greenlets": sum(isinstance(one, gevent.Greenlet) and not one.dead for one in _objects()),
    }


def _objects() -> list[object]:
    return gc.get_objects()


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
        assert after["descriptors"] <= before["descriptors"] + 2
        assert after["greenlets"] <= before["greenlets"] + 2


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
    assert after["descriptors"] <= before["descriptors"] + 1
    assert after["greenlets"] <= before["greenlets"] + 1


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


def memory(pid: int) -> int:
    """Private bytes of a process and everything below it that is ours."""
    total = 0
    for one in (pid, *_children(pid)):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                total += int(line.split()[1]) << 10
    return total


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if "tidegate" in Path(f"/proc/{child}/cmdline").read_text():
                found += [int(child), *_children(int(child))]
    return found


def zombies() -> int:
    """Processes of anybody that ended and were not collected."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            count += path.read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            continue
    return count


@pytest.mark.limit(3600 if SOAK else 180, "a soak of half an hour, in short here")
def test_T_R6_mixed_calls_for_long_leave_memory_and_descriptors_flat(tmp_path):
    seconds = 1800 if SOAK else 8
    with running_stack(tmp_path / "home") as stack:
        stack.install(package_of(PLUGINS / "misbehave", tmp_path))
        pids = [stack.pid("host"), stack.pid("api")]
        dead = zombies()
        _mixed(stack, 4)
        before = [(memory(pid), len(os.listdir(f"/proc/{pid}/fd"))) for pid in pids]
        _mixed(stack, seconds)
        time.sleep(1)
        after = [(memory(pid), len(os.listdir(f"/proc/{pid}/fd"))) for pid in pids]
        assert [stack.pid("host"), stack.pid("api")] == pids
        assert stack.metric("plugin_invocations_active") == 0
        assert zombies() <= dead
    for (memory_before, files_before), (memory_after, files_after) in zip(
        before, after, strict=True
    ):
        assert memory_after - memory_before < 16 << 20
        assert files_after <= files_before + 3


DEEDS = ("echo", "stream", "fail", "noise", "broken_line", "glued", "after_the_end", "die")


def _mixed(stack, seconds: float) -> None:
    ends_at = time.monotonic() + seconds

    def caller(number: int) -> None:
        turn = number
        while time.monotonic() < ends_at:
            deed = DEEDS[turn % len(DEEDS)]
            turn += 1
            if deed == "die" and turn % 5:
                continue
            left = 1 if turn % 7 == 0 else None
            stack.tool("tidegate/misbehave", "act", {"deed": deed}, leave_after=left)

    gevent.joinall([gevent.spawn(caller, number) for number in range(8)], raise_error=True)


@pytest.mark.limit(180, "thousands of connections are opened")
def test_T_B3_two_thousand_idle_connections_cost_little_and_starve_nobody(tmp_path):
    with running_stack(tmp_path / "home") as stack:
        stack.install(package_of(PLUGINS / "misbehave", tmp_path))
        assert stack.tool("tidegate/misbehave", "act", {"deed": "echo", "text": "x"}).texts == ["x"]
        before = memory(stack.pid("api"))
        idle = [stack.connection() for _ in range(2000)]
        began = time.monotonic()
        for connection in idle:
            connection.connect()
        connected = time.monotonic() - began
        served = stack.tool("tidegate/misbehave", "act", {"deed": "echo", "text": "served"})
        assert served.texts == ["served"]
        assert served.took < 2
        each = (memory(stack.pid("api")) - before) / len(idle)
        for connection in idle:
            connection.close()
        assert connected < 10
        assert each < 25 << 10, each
