"""The process above the host: what it hides, passes on, and leaves nothing of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import patience
from tests.runtime.processes import gone, runs
from tidegate.runtime import launcher
from tidegate.settings import Settings

GUARD = launcher.command_for("host", Settings())[:4]
SECRETS = {"SERVER_KEY": "canary-1", "DB_PASSWORD": "canary-2", "ODD": "line\nline"}

PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
from tidegate.runtime import guard
before = Path("/proc/self/environ").read_bytes().decode()
guard.enter()
script = "setsid sh -c 'sleep 300 & echo $!; wait' & wait"
child = subprocess.Popen(["setsid", "sh", "-c", script], env={"PATH": "/usr/bin:/bin"},
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
stray = int(child.stdout.readline())
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "stray": stray, "child": child.pid,
    "block": before, "environ": dict(os.environ),
}), flush=True)
%s
"""


class Guarded:
    """A program below a guard, and what it said about itself."""

    def __init__(self, last: str) -> None:
        environ = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **SECRETS}
        self.guard = subprocess.Popen(
            [*GUARD, sys.executable, "-c", PROGRAM % last],
            env=environ,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self.said = json.loads(self.guard.stdout.readline())

    def everybody(self) -> list[int]:
        return [self.guard.pid, self.said["pid"], self.said["stray"], self.said["child"]]

    def close(self) -> None:
        for pid in self.everybody():
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
        self.guard.wait()
        self.guard.stdout.close()


@pytest.fixture
def guarded():
    made = []

    def start(last: str) -> Guarded:
        made.append(Guarded(last))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_T_S13_no_environment_of_guard_and_program_holds_a_secret(guarded):
    one = guarded("time.sleep(60)")
    for pid in (one.guard.pid, one.said["pid"]):
        block = Path(f"/proc/{pid}/environ").read_text()
        assert "canary" not in block
        assert "TIDEGATE_GUARD" in block or pid == one.guard.pid
    assert "canary" not in one.said["block"]
    assert "canary" not in Path(f"/proc/{one.guard.pid}/cmdline").read_text()


def test_the_program_finds_its_variables_again_and_none_of_the_guards(guarded):
    environ = guarded("time.sleep(60)").said["environ"]
    assert {name: environ[name] for name in SECRETS} == SECRETS
    assert not [name for name in environ if "GUARD" in name]


def test_T_K8_kill_9_of_the_program_leaves_nothing_within_a_second(guarded):
    one = guarded("time.sleep(60)")
    os.kill(one.said["pid"], signal.SIGKILL)
    assert gone(one.everybody(), 1.0)
    assert one.guard.wait() == -signal.SIGKILL


def test_the_program_dies_with_its_guard(guarded):
    one = guarded("time.sleep(60)")
    one.guard.kill()
    assert gone([one.said["pid"]], 1.0)


@pytest.mark.parametrize(
    ("last", "code"), [("sys.exit(78)", 78), ("sys.exit(0)", 0), ("os.abort()", -signal.SIGABRT)]
)
def test_the_end_of_the_program_is_the_end_of_its_guard(guarded, last, code):
    one = guarded(last)
    assert one.guard.wait(5) == code
    assert gone(one.everybody(), 1.0)


def test_signals_are_passed_on(guarded):
    one = guarded(
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    one.guard.stdout.readline()
    started = time.monotonic()
    one.guard.terminate()
    assert one.guard.wait(20) == 7
    assert time.monotonic() - started < patience(3)
