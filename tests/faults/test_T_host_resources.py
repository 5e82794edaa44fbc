"""A host that is short of something: calls fail typed, nothing is lost, and it recovers."""

from __future__ import annotations

import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from tests.faults.acting import install, until
from tests.hosting import PLUGINS as PLUGIN_FOLDERS
from tests.hosting import Answer, Running, package_of, running_host
from tests.runtime.processes import gone, runs
from tidegate.runtime import launcher
from tidegate.settings import Settings

pytestmark = pytest.mark.limit(120, "plugins are started again and again")
# gevent's own close takes its time.
close_now = monkey.get_original("os", "close")
TYPED = {"PluginDied", "PluginStartFailed", "PluginQuarantined"}


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """This process may open ``spare`` more files and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    taken = [os.dup(0)]
    while taken[-1] <= highest:
        taken.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            close_now(fd)


def test_T_R5_T_R1_a_start_without_a_process_or_descriptor_fails_typed_and_is_tried_again(tmp_path):
    with running_host(tmp_path) as running:
        idle = install(running, tmp_path, own_name=True)
        busy = install(running, tmp_path)
        running.control("stop", identifier=idle)
        beside = running.call(busy, "stream", count=150, pause=0.02).first()
        before = len(os.listdir("/proc/self/fd"))
        with few_descriptors(2):
            for _ in range(3):
                failed = running.call(idle, "echo").wait(20)
                assert failed.error_type == "PluginStartFailed"
                assert "no process" in failed.error["message"]
        assert running.host.supervisor(idle).restarts.deaths == 3
        assert running.call(idle, "echo", text="up").wait().texts == ["up"]
        assert beside.wait().error is None
        running.control("stop", identifier=idle)
        assert len(os.listdir("/proc/self/fd")) <= before


def test_T_R5_a_plugin_that_may_not_fork_says_so_and_the_host_goes_on(tmp_path):
    with running_host(tmp_path, TIDEGATE_PLUGIN_PROCESSES=3) as running:
        identifier = install(running, tmp_path)
        bred = running.call(identifier, "breed", count=30).wait(20)
        assert bred.error["args"]["limit"] == "plugin_limit"
        assert running.call(identifier, "echo", text="on").wait().texts == ["on"]


def test_T_R4_a_working_path_that_cannot_be_written_is_a_typed_error(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with running_host(tmp_path, PLUGIN_WORKING_PATH=blocked) as running:
        identifier = running.shelf.add(package_of(PLUGIN_FOLDERS / "misbehave", tmp_path))
        answer = running.control("install", identifier=identifier)
        assert answer.error_type == "InstallFailed"
        assert "cannot be unpacked" in answer.error["message"]
        call = running.call(identifier, "echo").wait()
        assert call.error_type in TYPED
        blocked.unlink()
        running.shelf.blobs.clear()


def storm(tmp_path: Path, *, plugins: int, streams: int, seconds: float, pause: float) -> None:
    """T-K1: random kills under streams; every one ends whole or typed, and all serve again."""
    with running_host(tmp_path) as running:
        names = [install(running, tmp_path, own_name=True) for _ in range(plugins)]
        calm = statistics.median(recovery(running, name) for name in names[:3])
        answers = under_kills(running, names, streams, seconds, pause)
        assert {one.error_type for one in answers} - {None} <= TYPED
        assert all(len(one.texts) == 10 for one in answers if one.error is None)
        assert any(one.error is None for one in answers)
        assert any(one.error_type == "PluginDied" for one in answers)
        for name in names:
            running.control("restart", identifier=name)  # some are in quarantine
        after = statistics.median(recovery(running, name) for name in names)
        assert after < max(1.0, 2 * calm), (calm, after)
        until(lambda: not zombies())
        assert sum(one["sessions"] for one in plugins_of(running)) == 0


def under_kills(
    running: Running, names: list[str], streams: int, seconds: float, pause: float
) -> list[Answer]:
    """Streams one after the other, in so many rows, while processes are killed; all that ended."""
    answers: list[Answer] = []
    over = gevent.event.Event()

    def caller(number: int) -> None:
        while not over.is_set():
            name = names[number % len(names)]  # its own time is no end that is asked for here
            answer = running.call(name, "stream", count=10, pause=0.02, seconds=150)
            answers.append(answer.wait(150))
            if answer.error is not None:
                gevent.sleep(0.1)

    callers = [gevent.spawn(caller, number) for number in range(streams)]
    ends = gevent.get_hub().loop.now() + seconds
    while gevent.get_hub().loop.now() < ends:
        gevent.sleep(pause)
        instance = running.instance(random.choice(names))
        if instance is not None and runs(instance.pid):
            os.kill(instance.pid, signal.SIGKILL)
    over.set()
    gevent.joinall(callers, raise_error=True)
    return answers


def recovery(running: Running, name: str) -> float:
    """Seconds from the death of a plugin until its next call is served."""
    assert running.call(name, "echo", text="here").wait().texts == ["here"]
    os.kill(running.instance(name).pid, signal.SIGKILL)
    until(lambda: running.instance(name) is None)
    began = time.monotonic()
    assert running.call(name, "echo", text="again").wait().texts == ["again"]
    return time.monotonic() - began


def plugins_of(running: Running) -> list[dict[str, int]]:
    (figures,) = running.control("figures").chunks
    return list(figures["plugins"].values())


def zombies() -> list[int]:
    """Children of this process that nobody collected."""
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in own if not runs(int(pid))]


@pytest.mark.soak
@pytest.mark.limit(600, "the whole storm")
def test_T_K1_the_whole_storm(tmp_path):
    storm(tmp_path, plugins=20, streams=200, seconds=60, pause=0.05)


def test_T_K1_a_short_storm_leaves_no_zombie_and_everybody_serves_again(tmp_path):
    storm(tmp_path, plugins=2, streams=8, seconds=4, pause=0.3)


HOST = """
from gevent import monkey; monkey.patch_all()
import sys; from pathlib import Path
import gevent
from tests.faults.acting import install
from tests.hosting import running_host
from tidegate.runtime import guard
guard.enter()
home = Path(sys.argv[1])
with running_host(home) as running:
    running.host.care.adopts = True
    name = install(running, home)
    call = running.call(name, "escape", pause=60).first()
    print(running.instance(name).pid, *call.texts[0].split(), flush=True)
    import os; print(os.getpid(), flush=True)
    gevent.sleep(60)
"""


def test_T_K8_kill_9_of_the_host_leaves_no_plugin_and_nothing_that_one_started(tmp_path):
    words = launcher.command_for("host", Settings())[:4]
    program = subprocess.Popen(
        [*words, sys.executable, "-c", HOST, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    plugins = [int(pid) for pid in program.stdout.readline().split()]
    host = int(program.stdout.readline())
    assert len(plugins) == 3
    assert all(map(runs, plugins))
    os.kill(host, signal.SIGKILL)
    assert gone(plugins, 1.0)
    assert program.wait() == -signal.SIGKILL
    program.stdout.close()
