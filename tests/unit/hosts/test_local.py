"""An instance before it has a process, and one whose reader fails."""

import sys

import gevent
import pytest
from gevent.lock import BoundedSemaphore

from tests.unit.hosts.test_launch import prepared
from tidegate.backcalls import open_target
from tidegate.hosts.instance import State
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.starting import Start
from tidegate.hosts.status import figures_of, status_of
from tidegate.hosts.supervisor import Supervisor
from tidegate.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings.load({"TIDEGATE_HOME": str(tmp_path), "TIDEGATE_ISOLATION": "0"})


@pytest.fixture
def instance(settings, tmp_path):
    gone, log = [], PluginLog(tmp_path / "plugin.log")
    made = LocalInstance(
        prepared(folder=tmp_path, python=tmp_path / "python"),
        settings,
        {},
        Isolation(settings, {}),
        log,
        open_target(settings),
        gone.append,
    )
    made.gone = gone
    yield made
    log.close()


def test_one_that_is_being_given_its_files_is_in_no_figure_and_breaks_none(settings, instance):
    """`status` and `/metrics/` failed for as long as any plugin was at that point."""
    slots = BoundedSemaphore(1)
    supervisor = Supervisor(
        instance.prepared.identifier, None, settings, slots, lambda *_: instance, lambda _: None
    )
    attempt = Start("acme/x", settings, None, slots, lambda _: instance, lambda *_: None)
    attempt.candidate = instance
    supervisor._starter._try = attempt
    assert supervisor.instances == [instance]
    assert status_of(supervisor)["instances"] == []
    assert figures_of([supervisor])["instances"] == 0
    assert (instance.pid, instance.exit, instance.usable) == (0, None, False)


def test_one_whose_start_came_to_nothing_is_stopped_without_a_word(instance, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        instance.start()
    assert instance.state is State.FAILED
    instance.kill("nothing to kill")
    instance.drain(1.0)
    assert instance.gone == []


def test_one_whose_reader_fails_is_ended_and_says_why(instance, tmp_path, monkeypatch):
    """It lived on with nobody who read: each of its calls waited for its deadline."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho hello\nexec sleep 60\n")
    python.chmod(0o755)

    def fails():
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(instance.table, "hand_on", fails)
    instance.start()
    with gevent.Timeout(20):
        while not instance.gone:
            gevent.sleep(0.01)
    assert instance.state is State.FAILED
    assert instance.death.how(instance.exit) == "its output could not be read, signal SIGKILL"
    instance.stop()
