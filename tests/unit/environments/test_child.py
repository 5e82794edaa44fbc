"""Children: started with limits, seen to end, killed as a group, never mistaken for others."""

import errno
import os
import signal
import subprocess
import sys
import time

import gevent
import pytest
from gevent import monkey

from tests.patience import patience
from tests.runtime.processes import gone
from tidegate.environments import ReadEnd, children, spawn

close_now = monkey.get_original("os", "close")


class Shell:
    """A child that runs a shell script; what it says is read to the end by ``output``."""

    def __init__(self, script, folder, *, limits=None, environment=None):
        self.child = spawn(
            ["/bin/sh", "-c", script],
            folder=folder,
            environment=environment or {"PATH": "/usr/bin:/bin"},
            limits=limits,
            merge=True,
        )
        close_now(self.child.stdin)
        self.pipe = ReadEnd(self.child.stdout)

    def output(self):
        data = b""
        while piece := self.pipe.read(65536):
            data += piece
        return data.decode()

    def line(self):
        return self.pipe.read(65536).decode()

    def close(self):
        self.child.kill()
        self.child.wait(5)
        self.pipe.close()


@pytest.fixture
def shell(tmp_path):
    shells = []

    def start(script, **more):
        shells.append(Shell(script, tmp_path, **more))
        return shells[-1]

    yield start
    for one in shells:
        one.close()


def test_exit_codes_and_signals_are_told_apart(shell):
    assert str(shell("exit 7").child.wait(5)) == "exit code 7"
    assert str(shell("kill -9 $$").child.wait(5)) == "signal SIGKILL"
    assert str(shell("exit 0").child.wait(5)) == "exit code 0"


def test_a_child_has_folder_environment_limits_and_nothing_else(shell, tmp_path):
    one = shell(
        "pwd; env | sort; ulimit -n; ls /proc/self/fd | wc -l",
        limits={"nofile": 123, "core": 0},
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    lines = one.output().split()
    assert lines[0] == os.path.realpath(tmp_path)
    variables = {line.split("=")[0] for line in lines if "=" in line}
    assert variables <= {"PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}
    assert lines[-2:] == ["123", "4"]


def test_signals_that_the_host_ignores_are_not_ignored_by_the_child(shell):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        one = shell("grep SigIgn /proc/self/status")
        ignored = int(one.output().split()[1], 16)
        numbers = (signal.SIGUSR1, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM)
        assert [number for number in numbers if ignored >> (number - 1) & 1] == []
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_program_that_is_not_there_ends_with_127_and_says_so(tmp_path):
    child = spawn(["/nowhere/program"], folder=tmp_path, environment={}, merge=True)
    pipe = ReadEnd(child.stdout)
    assert b"cannot start /nowhere/program" in pipe.read(1000)
    assert child.wait(5).code == 127
    pipe.close()
    close_now(child.stdin)


def test_T_K4_what_is_left_of_the_group_goes_with_its_leader(shell):
    one = shell("sleep 300 & echo $!; sleep 300 & echo $!; sleep 0.1; exit 1")
    pids = [int(word) for word in one.output().split()]
    assert one.child.wait(5).code == 1
    assert len(pids) == 2
    assert all(gone([pid]) for pid in pids)


def test_T_K5_stop_terminates_and_kills_after_the_grace(shell):
    polite = shell("sleep 300")
    begun = time.monotonic()
    assert polite.child.stop(5).signal == signal.SIGTERM
    stubborn = shell("trap '' TERM; echo ready; while true; do sleep 1; done")
    stubborn.line()
    assert stubborn.child.stop(0.2).signal == signal.SIGKILL
    assert time.monotonic() - begun < patience(4)


def test_T_K6_a_number_that_was_used_before_is_never_hit(shell, monkeypatch):
    one = shell("exit 0")
    one.child.wait(5)
    sent = []
    monkeypatch.setattr(os, "killpg", lambda *arguments: sent.append(arguments))
    one.child.kill()
    one.child.signal(signal.SIGTERM)
    assert sent == []


def test_T_K7_children_of_other_libraries_keep_their_exit_codes_and_so_do_ours(shell):
    other = subprocess.Popen(["/bin/sh", "-c", "sleep 0.1; exit 5"])
    ours = [shell(f"sleep 0.05; exit {number}") for number in range(20)]
    assert [one.child.wait(10).code for one in ours] == list(range(20))
    assert other.wait() == 5


def test_callbacks_hear_of_the_end_once_also_when_they_come_late(shell):
    one = shell("exit 0")
    heard = []
    one.child.on_exit(lambda: heard.append("early"))
    one.child.wait(5)
    one.child.on_exit(lambda: heard.append("late"))
    gevent.sleep(0.01)
    assert heard == ["early", "late"]


def test_waiting_for_a_child_that_runs_on_gives_none(shell):
    assert shell("sleep 300").child.wait(0.01) is None


def test_a_child_dies_with_its_parent(tmp_path):
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent; from pathlib import Path; from tidegate.environments import spawn\n"
        "child = spawn(['/bin/sleep', '300'], folder=Path('/'), environment={})\n"
        "print(child.pid, flush=True); gevent.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone([pid], 1.0)


def test_no_descriptor_is_left_when_a_start_fails(tmp_path, monkeypatch):
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        spawn(["/bin/true"], folder=tmp_path, environment={})
    assert set(os.listdir("/proc/self/fd")) == before


def test_T_R1_a_child_that_cannot_be_watched_is_ended_and_nothing_of_it_stays(
    tmp_path, monkeypatch
):
    """Its process ran on and was counted among the living, so that nobody ever collected it."""
    before = set(os.listdir("/proc/self/fd"))
    numbers = []

    def refused(pid):
        numbers.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refused)
    with pytest.raises(OSError, match="Too many open files"):
        spawn(["/bin/sleep", "60"], folder=tmp_path, environment={})
    monkeypatch.undo()
    (pid,) = numbers
    assert os.waitid(os.P_PID, pid, os.WEXITED).si_status == signal.SIGKILL
    assert pid not in children()
    assert set(os.listdir("/proc/self/fd")) == before
