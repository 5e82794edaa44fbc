"""Hygiene of every test: nothing leaks, nothing blocks the hub, nothing hangs, seeds are known.

The suite runs patched (``python -m gevent.monkey --module pytest``); ``tests/wire`` and
``tests/unit/packages`` run plain as well, and then only files and children are watched.
What a test may claim for itself, always with the reason:

* ``@pytest.mark.limit(seconds, "why")`` - takes longer than 60 s
* ``@pytest.mark.blocks_hub("why")`` - a greenlet may use the CPU for more than 50 ms at a stretch
* ``@pytest.mark.leaks("why")`` - leaves something behind on purpose
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gevent
import greenlet
import hypothesis
import pytest
from gevent import monkey

from tests.databases import backend_fixture, copies_fixture  # noqa: F401 - fixtures, by their name
from tests.servers import (  # noqa: F401 - fixtures, by their name
    is_pooled,
    postgres_fixture,
    redis_fixture,
    s3_fixture,
)

PATCHED = bool(monkey.is_module_patched("socket"))
SEED = os.environ.get("TIDEGATE_TEST_SEED", "1")
LIMIT = 60.0
HUB_LIMIT = 0.05
SETTLE = 3.0

# Settings of whoever runs the suite must not reach the tests; proxies and certificates must.
_SETTING_PREFIXES = (
    "ADMIN_", "AWS_", "CELERY_", "DB_", "DIFY_", "FLASK_", "LOG_", "PIP_MIRROR_", "PLUGIN_",
    "REDIS_", "S3_", "SERVER_", "THIRD_PARTY_", "TIDEGATE_",
)  # fmt: skip
_SETTINGS = {"DEBUG", "PLATFORM", "FORCE_VERIFYING_SIGNATURE", "XDG_DATA_HOME"}
# What `make test` tells its children; a make that a test starts is nobody's child.
_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}


def pytest_configure(config: pytest.Config) -> None:
    """Markers, Hypothesis, and an environment without settings."""
    for marker in ("limit(seconds, reason)", "blocks_hub(reason)", "leaks(reason)"):
        config.addinivalue_line("markers", f"{marker}: see tests/conftest.py")
    for name in list(os.environ):
        ours = name.startswith(_SETTING_PREFIXES) or name in _SETTINGS | _OF_MAKE
        if ours and not name.startswith("TIDEGATE_TEST_"):
            del os.environ[name]
    hypothesis.settings.register_profile(
        "house",
        deadline=None,
        database=None,
        derandomize="TIDEGATE_TEST_SEED" not in os.environ,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("house")
    faulthandler.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`make soak` runs what is long only: marked ``soak`` (its short twin runs in CI), or marked
    ``stretched`` (the same test, shortened in CI)."""
    soaking = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
    left = [item for item in items if soaking is not _is_long(item, soaking=soaking)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def pytest_collection_finish() -> None:
    """All that is loaded by now stays: no collection has to walk through it again."""
    gc.collect()
    gc.freeze()


def _is_long(item: pytest.Item, *, soaking: bool) -> bool:
    marks = ("soak", "stretched") if soaking else ("soak",)
    return any(item.get_closest_marker(mark) for mark in marks)


def pytest_report_header() -> str:
    """How this run can be repeated."""
    return f"tidegate: patched={PATCHED} seed={SEED} (TIDEGATE_TEST_SEED repeats it)"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One JSON line per finished phase for tests/run.py, which merges its lanes."""
    path = os.environ.get("TIDEGATE_TEST_REPORT")
    if path is None:
        return
    line = {"test": report.nodeid, "when": report.when, "outcome": report.outcome}
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "seconds": round(report.duration, 3)}) + "\n")


# --------------------------------------------------------------------------- time and seeds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """The last resort: a test that not even its own time-out ends is shown, and ends the run."""
    random.seed(f"{SEED}:{item.nodeid}")
    faulthandler.dump_traceback_later(_limit(item) + 30, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test body that waits for too long fails by itself and lets the others run."""
    if not PATCHED:
        return (yield)
    limit = _limit(item)
    with gevent.Timeout(limit, TimeoutError(f"{item.nodeid} took over {limit:g} s")):
        return (yield)


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("limit")
    return float(marker.args[0]) if marker else LIMIT


# --------------------------------------------------------------------------- hub


class _HubWatch:
    """Measures the CPU time of each stretch between two greenlet switches.

    The test's own greenlet is not counted: what it computes between two waits is the test's
    work. Everything that it spawned, and the hub itself, is.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self.who = ""
        self._since = 0.0
        self._collecting_since = 0.0
        self._main = greenlet.getcurrent()

    def __call__(self, event: str, args: tuple[Any, Any]) -> None:
        """Called by greenlet at each switch."""
        now = time.thread_time()
        spent, self._since = now - self._since, now
        if spent > self.worst and event in ("switch", "throw") and args[0] is not self._main:
            self.worst, self.who = spent, repr(args[0])

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """Called by gc: walking all that a test run has loaded is not the code's time."""
        now = time.thread_time()
        if phase == "start":
            self._collecting_since = now
        else:
            self._since += now - self._collecting_since


@contextmanager
def _watch_hub(item: pytest.Item) -> Iterator[None]:
    watch = _HubWatch()
    before = greenlet.settrace(watch)
    gc.callbacks.append(watch.collecting)
    try:
        yield
    finally:
        gc.callbacks.remove(watch.collecting)
        greenlet.settrace(before)
    if watch.worst > HUB_LIMIT and item.get_closest_marker("blocks_hub") is None:
        pytest.fail(
            f"the hub was blocked for {watch.worst * 1000:.0f} ms of CPU by {watch.who}",
            pytrace=False,
        )


# --------------------------------------------------------------------------- leaks


class _Greenlets:
    """Every greenlet that was spawned and still lives."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        gevent.Greenlet.add_spawn_callback(self._seen.add)

    def alive(self) -> dict[str, str]:
        """Identity to description of what has not ended."""
        return {f"greenlet {id(one)}": repr(one) for one in list(self._seen) if not one.dead}


class _Programs:
    """Every child that was started by gevent's subprocess.

    From its first use on it takes the exit codes of all children; tests that wait for theirs by
    pidfd need them. So its handler goes when nobody needs it; the next Popen installs it anew.
    """

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        start = subprocess.Popen.__init__

        def seen(popen: Any, *args: Any, **rest: Any) -> None:
            start(popen, *args, **rest)
            self._seen.add(popen)

        subprocess.Popen.__init__ = seen  # type: ignore[method-assign]

    def give_back_exit_codes(self) -> None:
        """Let others wait for children, unless a fixture's program still runs."""
        if all(one.returncode is not None for one in self._seen):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


_GREENLETS = _Greenlets()
_PROGRAMS = _Programs()
# gevent and ssl open these once per process, at first use.
_ONCE = ("anon_inode:[event", "/dev/null", "/dev/urandom", "anon_inode:[signalfd]")


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # closed meanwhile, or the listing itself
        pooled = target.startswith("socket:") and is_pooled(int(name))
        if not pooled and not target.startswith(_ONCE):
            found[f"fd {name} {target}"] = target
    return found


def _children() -> dict[str, str]:
    found = {}
    for task in os.listdir("/proc/self/task"):
        try:
            pids = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split()
        except OSError:
            continue  # the thread ended meanwhile
        found.update({f"child {pid}": _command(pid) for pid in pids})
    return found


def _command(pid: str) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return "ended"
    return text.decode("utf-8", "replace")[:200] or "zombie"


def _alive() -> dict[str, str]:
    return {**_descriptors(), **_children(), **(_GREENLETS.alive() if PATCHED else {})}


def _leaked(before: dict[str, str]) -> list[str]:
    """What is there now and was not before, after it had time to go."""
    end = time.monotonic() + SETTLE
    pause = 0.001
    while new := [f"{key}: {what}" for key, what in _alive().items() if key not in before]:
        if time.monotonic() > end:
            return new
        (gevent.sleep if PATCHED else time.sleep)(pause)
        pause = min(pause * 2, 0.1)
        if pause > 0.01:  # what ends by itself needs no collection, which takes far longer
            gc.collect()
    return []


@pytest.fixture(autouse=True)
def hygiene(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test that leaves descriptors, greenlets or children, or that blocks the hub."""
    if PATCHED:
        _PROGRAMS.give_back_exit_codes()
    before = _alive()
    with _watch_hub(request.node) if PATCHED else nullcontext():
        yield
    if request.node.get_closest_marker("leaks") is not None:
        return  # without the time that others get to clear up
    if leaked := _leaked(before):
        pytest.fail("left behind:\n  " + "\n  ".join(leaked), pytrace=False)
