"""Stopping a plugin while something else is being done with it: nothing is left, nobody waits."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from tests.hosting import PLUGINS, Running, Shelf, package_of, running_host
from tidegate.errors import PluginStartFailed
from tidegate.hosts import Phase

MISBEHAVE = PLUGINS / "misbehave"


@pytest.fixture
def running(tmp_path):
    """A host of this test's own."""
    with running_host(tmp_path, TIDEGATE_STOP_GRACE=1) as running:
        yield running


def started(running: Running, tmp_path: Path) -> str:
    identifier = running.shelf.add(package_of(MISBEHAVE, tmp_path))
    answer = running.control("install", identifier=identifier)
    assert answer.error is None, answer.error
    return identifier


def test_a_plugin_that_is_being_stopped_is_not_started_again_by_a_restart(running, tmp_path):
    """What that would start belongs to nobody: it ran until the host ended."""
    identifier = started(running, tmp_path)
    hung = running.call(identifier, "hang").first()
    supervisor = running.host.supervisor(identifier)
    stopping = gevent.spawn(running.control, "stop", identifier=identifier, grace=20)
    while supervisor.phase is not Phase.STOPPED:
        gevent.sleep(0.01)
    refused = running.control("restart", identifier=identifier)
    assert refused.error_type == "PluginStartFailed"
    assert "is being stopped" in refused.error["message"]
    assert supervisor.starts == 1
    hung.call.cancel()
    assert stopping.get(timeout=30).error is None
    assert supervisor.instances == []


def test_a_stop_goes_on_when_the_time_of_whoever_asked_is_over(running, tmp_path):
    """Stopped by half, a plugin refused every call until the host was started again."""
    identifier = started(running, tmp_path)
    hung = running.call(identifier, "hang").first()
    late = running.control("stop", identifier=identifier, grace=20, seconds=0.3)
    assert late.error_type == "DeadlineExceeded"
    hung.call.cancel()
    with gevent.Timeout(30):
        while running.host.supervisors:
            gevent.sleep(0.01)
    assert running.call(identifier, "echo", text="again").wait().texts == ["again"]


class SlowShelf(Shelf):
    """Packages that come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gives = Event(), Event()

    def load(self, key: str) -> bytes:
        self.asked.set()
        self.gives.wait(30)
        return super().load(key)


def test_whoever_waits_for_a_start_hears_of_its_end_however_early_it_is_stopped(running, tmp_path):
    """A start that is killed before its first turn had nobody who would tell its waiters."""
    shelf = running.host.provision._blobs = SlowShelf()
    identifier = shelf.add(package_of(MISBEHAVE, tmp_path, name="misbehave-early"))
    supervisor = running.host.supervisor(identifier)
    for wait_for_its_turn in (False, True):
        waiter = gevent.spawn(_outcome, supervisor)
        if wait_for_its_turn:
            assert shelf.asked.wait(10)
        stopping = gevent.spawn(supervisor.stop, 0.0)
        with gevent.Timeout(20):
            assert "was stopped" in waiter.get()
            stopping.get()
        supervisor._stopped = False
    shelf.gives.set()


def _outcome(supervisor) -> str:
    with pytest.raises(PluginStartFailed) as failed:
        supervisor.ensure_up()
    return failed.value.message


def test_a_host_that_stops_refuses_operations_at_once(running, tmp_path):
    """An installation waited, without a pause, for a plugin that had been stopped for good."""
    identifier = started(running, tmp_path)
    # As it is while the host still waits for calls of another plugin.
    running.host.supervisor(identifier).stop(grace=0.0)
    running.host._stopping = True
    refused = running.control("install", identifier=identifier, seconds=10)
    assert "the host is stopping" in refused.error["message"]
