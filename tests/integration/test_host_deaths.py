"""Plugins that die, do not start or do not stop: who notices, and how soon it is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import gevent
import pytest

from tests.hosting import PLUGINS, Running, package_of, running_host
from tests.patience import patience, wait_until
from tests.runtime.processes import gone
from tidegate.hosts.restarts import Restarts
from tidegate.testing.clocks import HandClock

MISBEHAVE = PLUGINS / "misbehave"
pytestmark = pytest.mark.limit(90, "plugins are started and stopped several times")


@pytest.fixture
def running(tmp_path):
    """A host of this test's own."""
    with running_host(tmp_path, TIDEGATE_STOP_GRACE=1) as running:
        yield running


def installed(running: Running, tmp_path: Path, start: str) -> str:
    """A plugin that starts in that way, under a name of its own, on the shelf."""
    name = f"misbehave-{uuid.uuid4().hex[:8]}"
    data = package_of(MISBEHAVE, tmp_path, name=name, files={"start.txt": start})
    return running.shelf.add(data)


def started(running: Running, tmp_path: Path, start: str = "") -> str:
    """A running plugin: the one that all tests share on the disk, or one of its own name."""
    if start:
        identifier = installed(running, tmp_path, start)
    else:
        identifier = running.shelf.add(package_of(MISBEHAVE, tmp_path))
    answer = running.control("install", identifier=identifier)
    assert answer.error is None, answer.error
    return identifier


def test_kill_9_ends_every_call_typed_and_at_once_and_the_next_call_is_served(running, tmp_path):
    identifier = started(running, tmp_path)
    other = started(running, tmp_path, "well")
    calls = [running.call(identifier, "stream", count=500, pause=0.01) for _ in range(20)]
    beside = running.call(other, "stream", count=100, pause=0.01)
    for call in calls:
        call.first()
    os.kill(running.instance(identifier).pid, signal.SIGKILL)
    killed = time.monotonic()
    for call in calls:
        assert call.wait(10).error_type == "PluginDied"
    # The bar of 100 ms is the bench's: two busy cores.
    assert time.monotonic() - killed < patience(0.5)
    assert calls[0].error["args"]["signal"] == 9
    assert running.call(identifier, "echo", text="again").wait(10).texts == ["again"]
    assert beside.wait().error is None
    assert len(beside.texts) == 100


@pytest.mark.parametrize(
    ("deed", "details"),
    [
        ("die", {"exit_code": 7, "signal": None}),
        ("crash", {"exit_code": None, "signal": 11}),
        ("close_stdout", {"exit_code": None, "signal": 9}),
    ],
)
def test_D_01_a_death_says_how_and_keeps_the_last_words(running, tmp_path, deed, details):
    identifier = started(running, tmp_path)
    answer = running.call(identifier, deed).wait(5)
    assert answer.texts == ["last words"]
    assert answer.error_type == "PluginDied"
    assert {name: answer.error["args"][name] for name in details} == details
    if deed == "die":
        assert "cannot go on at" in answer.error["args"]["stderr"]
        assert "tools/act.py" in answer.error["args"]["stderr"]
        assert str(running.settings.working_path) not in str(answer.error)
    if deed == "close_stdout":
        assert "closed its standard output" in answer.error["message"]


def test_D_01_an_output_that_only_a_child_has_open_ends_every_call_as_if_it_were_closed(
    running, tmp_path
):
    """Its end does not come, and 300 s long nobody heard of anything."""
    identifier = started(running, tmp_path)
    calls = [running.call(identifier, "close_stdout", child=True).first()]
    calls.append(running.call(identifier, "hang"))
    for call in calls:
        assert call.wait(10).error_type == "PluginDied"
        assert "closed its standard output" in call.error["message"]
    assert running.call(identifier, "echo", text="again").wait().texts == ["again"]


def test_a_plugin_that_closed_its_standard_input_is_replaced(running, tmp_path):
    identifier = started(running, tmp_path)
    deaf = running.call(identifier, "close_stdin").first()
    running.call(identifier, "echo").wait(10)  # its reader may have waited for this line already
    assert running.call(identifier, "echo", text="hears").wait(10).texts == ["hears"]
    assert deaf.wait(5).error_type == "PluginDied"
    assert "closed its standard input" in deaf.error["message"]


def test_T_K4_children_of_a_plugin_die_with_it(running, tmp_path):
    identifier = started(running, tmp_path)
    answer = running.call(identifier, "die_with_children").wait(5)
    assert answer.error_type == "PluginDied"
    for pid in answer.texts[0].split():
        assert gone([int(pid)])


def test_T_K5_a_plugin_that_ignores_sigterm_is_killed_after_the_grace(running, tmp_path):
    identifier = started(running, tmp_path, "ignore_term")
    pid = running.instance(identifier).pid
    begun = time.monotonic()
    assert running.control("stop", identifier=identifier).chunks == [{"stopped": True}]
    assert 0.9 < time.monotonic() - begun < patience(4)
    assert gone([pid])


def test_a_plugin_that_crashes_at_its_start_is_reported_with_exit_and_stderr(running, tmp_path):
    identifier = installed(running, tmp_path, "crash")
    answer = running.control("install", identifier=identifier)
    assert answer.error_type == "InstallFailed"
    assert "failed to launch plugin: plugin failed to start: exit code 3" in answer.error["message"]
    assert "no module named nothing" in answer.error["message"]
    assert running.host.supervisors == []
    folder = running.settings.working_path / identifier.replace(":", "-")
    assert not folder.exists()


@pytest.mark.stretched
def test_T_K3_exits_during_start_back_off_and_quarantine_until_one_succeeds(running, tmp_path):
    """The processes are real, the clock is the test's. A hundred exits in the soak; in CI as many
    as it takes to reach the longest wait.
    """
    clock, mended = HandClock(), tmp_path / "mended"
    identifier = installed(running, tmp_path, f"crash_unless {mended}")
    supervisor = running.host.supervisor(identifier)
    supervisor.restarts = Restarts(QUARANTINE, clock)
    waits = []
    for exits in range(1, EXITS + 1):
        error = running.call(identifier, "echo").wait().error
        assert (error["error_type"], error["args"]["exit_code"]) == ("PluginStartFailed", 3)
        assert "no available node, plugin runtime not found" in error["message"]
        waits.append(supervisor.restarts.wait)
        if exits < 5:
            assert shown(running, identifier) == ("idle", None, exits)
            clock.pass_time(waits[-1])
        else:
            check_quarantined(running, identifier, clock, exits)
    assert waits == [0, 0.5, 1, 2, 4, 8, 16, *[30] * (EXITS - 7)]
    assert supervisor.starts == EXITS
    mended.touch()
    assert running.call(identifier, "echo", text="mended").wait().texts == ["mended"]
    assert shown(running, identifier) == ("up", None, EXITS)
    os.kill(running.instance(identifier).pid, signal.SIGKILL)
    wait_until(lambda: supervisor.restarts.deaths != EXITS)
    assert running.call(identifier, "echo", text="again").wait().texts == ["again"]
    assert supervisor.restarts.wait == 0, "who has served begins anew"


EXITS = 100 if os.environ.get("TIDEGATE_TEST_SOAK") else 9
QUARANTINE = 300.0


def shown(running: Running, identifier: str) -> tuple[str, float | None, int]:
    """What people are told of a plugin."""
    (status,) = running.control("status", identifier=identifier).chunks
    assert "exit code 3" in status["last_error"]
    return status["phase"], status["quarantined_until"], status["deaths"]


def check_quarantined(running: Running, identifier: str, clock: HandClock, exits: int) -> None:
    """Until its time every call is refused and nothing is started; then it may be tried again."""
    until = clock.now().timestamp() + QUARANTINE
    for left in (QUARANTINE, 1.0):
        clock.pass_time(until - left - clock.now().timestamp())
        error = running.call(identifier, "echo").wait().error
        assert (error["error_type"], error["args"]) == ("PluginQuarantined", {"until": int(until)})
        assert f"died {exits} times in a row and starts again in {left:.0f} s" in error["message"]
        assert "no available node" in error["message"]
        assert "exit code 3" in error["message"]
        assert shown(running, identifier) == ("quarantined", until, exits)
    assert running.host.supervisor(identifier).starts == exits
    clock.pass_time(1.0)
    assert shown(running, identifier) == ("idle", None, exits)


def test_T_K3_a_call_waits_out_the_back_off_and_a_restart_waits_for_nothing(running, tmp_path):
    identifier = installed(running, tmp_path, "crash")
    begun = time.monotonic()
    for _ in range(3):
        assert running.call(identifier, "echo").wait(20).error_type == "PluginStartFailed"
    assert time.monotonic() - begun > 0.5
    restarts = running.host.supervisor(identifier).restarts
    assert 0 < restarts.wait <= 1
    while restarts.quarantined_until is None:
        restarts.died(ready=False, lived=0.0, served=0)
    assert running.call(identifier, "echo").wait().error_type == "PluginQuarantined"
    assert "exit code 3" in running.control("restart", identifier=identifier).error["message"]
    assert restarts.wait == 0, "a person asked: that is the first of a row"
    assert shown(running, identifier)[0] == "idle"


def test_D_57_a_plugin_that_dies_after_its_heartbeat_does_not_start_for_ever(running, tmp_path):
    identifier = installed(running, tmp_path, "die_soon")
    running.control("install", identifier=identifier)
    supervisor = running.host.supervisor(identifier)
    wait_until(lambda: supervisor.restarts.deaths, 10)
    gevent.sleep(1.0)  # in which nothing starts
    assert (supervisor.restarts.deaths, supervisor.starts) == (1, 1)
    assert supervisor.phase.value == "idle"


def test_a_silent_plugin_fails_at_the_start_limit_with_its_stderr(tmp_path):
    with running_host(tmp_path, TIDEGATE_START_LIMIT=1.5) as running:
        identifier = installed(running, tmp_path, "silent")
        call = running.call(identifier, "echo")
        answer = running.control("install", identifier=identifier)
        assert "no heartbeat within 1.5 s" in answer.error["message"]
        assert "thinking about it" in answer.error["message"]
        assert call.wait(5).error_type == "PluginStartFailed"
        assert running.host.supervisors == []


def test_a_restart_lets_running_calls_end_and_loses_none(running, tmp_path):
    identifier = started(running, tmp_path)
    calls = [running.call(identifier, "stream", count=300, pause=0.01) for _ in range(5)]
    for call in calls:
        call.first()
    old = running.instance(identifier).pid
    assert running.control("restart", identifier=identifier).error is None
    (new,) = running.call(identifier, "pid").wait().texts
    assert int(new) != old
    for call in calls:
        assert call.wait().error is None
        assert len(call.texts) == 300
    assert gone([old], 5)


def test_stop_lets_running_calls_end_within_the_grace_and_ends_the_others_typed(running, tmp_path):
    identifier = started(running, tmp_path)
    short = running.call(identifier, "stream", count=30, pause=0.01).first()
    hung = running.call(identifier, "hang").first()
    pid = running.instance(identifier).pid
    assert running.control("stop", identifier=identifier, grace=1).error is None
    assert short.wait().error is None
    assert hung.wait().error_type == "PluginDied"
    assert gone([pid])
    assert running.host.supervisors == []


def test_remove_takes_folder_and_the_next_call_builds_it_again(running, tmp_path):
    identifier = started(running, tmp_path, "well")
    folder = running.settings.working_path / identifier.replace(":", "-")
    assert folder.is_dir()
    loads = running.shelf.loads
    assert running.control("remove", identifier=identifier).error is None
    assert not folder.exists()
    assert running.call(identifier, "echo", text="built").wait().texts == ["built"]
    assert running.shelf.loads > loads
    running.control("remove", identifier=identifier)


def test_T_P8_a_plugin_that_does_not_read_costs_the_calls_whose_deadline_passes(tmp_path):
    with running_host(tmp_path, TIDEGATE_PLUGIN_BACKLOG=4 << 20) as running:
        identifier = started(running, tmp_path)
        pid = running.instance(identifier).pid
        stopped = running.call(identifier, "not_reading").first()
        calls = [running.call(identifier, "echo", text="x" * 4000, seconds=1.0) for _ in range(500)]
        patient = running.call(identifier, "echo", text="waited")
        for call in calls:
            assert call.wait(10).error_type == "DeadlineExceeded"
        assert running.call(identifier, "echo", text="x").error is None
        huge = running.call(identifier, "echo", text="x" * (5 << 20))
        over = running.call(identifier, "echo", text="x" * (5 << 20)).wait(10)
        assert over.error_type == "Overloaded"
        os.kill(pid, signal.SIGCONT)
        assert patient.wait().texts == ["waited"]
        assert huge.wait().error is None
        assert stopped.wait().error is None
        assert running.instance(identifier).pid == pid


def test_plugins_die_with_their_host(tmp_path):
    """kill -9 of the host (T-K8): nothing of it is left within a second."""
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, gevent; from pathlib import Path\n"
        "from tests.hosting import *\n"
        "home = Path(sys.argv[1])\n"
        "with running_host(home) as running:\n"
        "    name = running.shelf.add(package_of(PLUGINS / 'misbehave', home))\n"
        "    assert running.control('install', identifier=name).error is None\n"
        "    print(running.call(name, 'pid').wait().texts[0], flush=True)\n"
        "    gevent.sleep(60)\n"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    pid = int(host.stdout.readline())
    host.kill()
    host.wait()
    host.stdout.close()
    assert gone([pid], 1.0)
