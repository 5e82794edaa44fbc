"""``tidegate up``: starts in order, restarts with back-off, gives up loudly, leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.patience import patience, wait_until
from tests.runtime.asking import ask
from tests.runtime.processes import Program, runs, tree
from tidegate.runtime import supervise

ORDER = ("host", "worker", "beat", "api")


@pytest.fixture
def small_up(start):
    """The supervisor with small roles; keywords make them ill (programs/small_role.py)."""

    def run(**ill: str) -> Program:
        return start(
            "python", "-m", "small_up", **{f"SMALL_{k.upper()}": v for k, v in ill.items()}
        )

    return run


@pytest.mark.limit(120, "starts the four real roles twice on a busy machine")
def test_R1_up_starts_restarts_and_stops_the_real_roles(start, environ):
    home = Path(environ["TIDEGATE_HOME"])
    program = start("tidegate", "up")
    program.wait_for(r"^tidegate: ready: http://127\.0\.0\.1", 60)
    assert {name for name in re.findall(r'"role": "(\w+)"', program.text)} == set(ORDER)
    pids = {name: int((home / f"run/{name}.pid").read_text()) for name in ORDER}
    key = (home / "keys/server.key").read_text()
    shown = ask(environ, "/debug/runtime", {"X-Api-Key": key})["data"]
    assert shown["api"]["ppid"] == pids["api"]
    assert shown["api"]["pool"] == "GeventWorker"
    assert shown["host"]["ppid"] == pids["host"]  # its guard

    second = start("tidegate", "up")
    assert second.wait(30) == 78
    assert f"pid {program.pid}" in second.text

    os.kill(pids["worker"], signal.SIGKILL)
    program.wait_for(r"worker ended \(signal SIGKILL\), starts again in 0\.5 s", 10)
    program.wait_for(r"(worker is ready[\s\S]*){2}", 60)

    everybody = tree(program.pid)
    assert len(everybody) >= 5
    program.kill(signal.SIGINT)
    assert program.wait(30) == 0
    assert not [pid for pid in everybody if runs(pid)]
    assert not list((home / "run").glob("*.pid"))
    assert not list((home / "run").glob("*.json"))
    assert (home / "logs/api.log").read_text().count("fingerprint") == 1


def test_roles_are_started_and_stopped_in_order(small_up):
    program = small_up()
    program.wait_for("^after ready$")
    assert "starting host, worker, beat, api" in program.text
    program.kill()
    assert program.wait() == 0
    assert re.findall(r"\| (\w+) stops", program.text) == ["api", "beat", "worker", "host"]


def test_a_role_that_refuses_ends_everything_with_its_own_line(small_up):
    program = small_up(worker="refuse")
    assert program.wait() == 1
    assert program.took_less_than(5)
    assert "worker cannot be kept running (exit code 78): see " in program.text
    assert "the last that worker said: tidegate: worker is not possible here: do" in program.text
    assert program.text.count("| worker starts") == 1


def test_a_role_that_never_served_is_not_started_again(small_up):
    program = small_up(beat="dies")
    assert program.wait() == 1
    assert program.text.count("| beat starts") == 1


def test_a_role_that_keeps_dying_is_given_up_after_longer_and_longer_pauses(small_up):
    program = small_up(beat="die_ready")
    assert program.wait(40) == 1
    pauses = re.findall(r"beat ended \(signal SIGALRM\), starts again in ([0-9.]+) s", program.text)
    assert pauses == ["0.5", "1", "2", "4"]
    assert "beat cannot be kept running (signal SIGALRM)" in program.text


def test_a_death_by_a_signal_without_a_name_is_reported_as_well():
    """The report of a death once ended `up` itself: a real-time signal has a number only."""
    assert supervise._exit_text(-(signal.SIGRTMIN + 5)) == f"signal {signal.SIGRTMIN + 5}"
    assert supervise._exit_text(-9) == "signal SIGKILL"
    assert supervise._exit_text(3) == "exit code 3"


def test_a_deaf_role_is_killed_when_the_grace_is_over(start):
    program = start("python", "-m", "small_up", SMALL_BEAT="deaf", TIDEGATE_GRACE="0")
    program.wait_for("^after ready$")
    pids = tree(program.pid)
    began = time.monotonic()
    program.kill()
    assert program.wait(40) == 0
    assert time.monotonic() - began < patience(10)
    assert not [pid for pid in pids if runs(pid)]


def test_a_second_signal_leaves_no_grace(small_up):
    program = small_up(api="deaf")
    program.wait_for("^after ready$")
    program.kill(signal.SIGINT)
    program.wait_for("stopping api")
    program.kill(signal.SIGINT)
    assert program.wait(patience(3)) == 0


def test_what_a_role_left_behind_is_killed(small_up):
    program = small_up(host="orphan")
    orphan = int(program.wait_for(r"orphan (\d+)")[1])
    program.wait_for("^after ready$")
    assert runs(orphan)
    program.kill()
    assert program.wait() == 0
    assert not runs(orphan)


def test_roles_end_when_the_supervisor_is_killed(small_up):
    program = small_up()
    program.wait_for("^after ready$")
    pids = tree(program.pid)
    assert len(pids) >= len(ORDER)
    program.kill(signal.SIGKILL)
    program.wait()
    wait_until(lambda: not [pid for pid in pids if runs(pid)], 10)
