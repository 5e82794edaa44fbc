"""What the fault tests share: hosts with the misbehaving plugin, and who still runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import gevent

from tests.hosting import PLUGINS, Running, package_of
from tests.patience import patience

MISBEHAVE = PLUGINS / "misbehave"


def install(running: Running, scratch: Path, start: str = "", *, own_name: bool = False) -> str:
    """The misbehaving plugin, installed and up: the shared one, or one under a name of its own."""
    if start or own_name:
        name = f"misbehave-{uuid.uuid4().hex[:8]}"
        data = package_of(MISBEHAVE, scratch, name=name, files={"start.txt": start or "well"})
    else:
        data = package_of(MISBEHAVE, scratch)
    identifier = running.shelf.add(data)
    answer = running.control("install", identifier=identifier)
    assert answer.error is None, answer.error
    return identifier


def runs(pid: int) -> bool:
    """Whether a process runs, and is not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(probe: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until ``probe`` is true; the seconds it took. The test fails when it does not get so."""
    started = time.monotonic()
    while not probe():
        took = time.monotonic() - started
        assert took < seconds, f"not within {seconds} s"
        gevent.sleep(0.02)
    return time.monotonic() - started


def gone(pids: list[int], seconds: float = 2.0) -> bool:
    """Whether none of the processes runs within ``seconds``."""
    end = time.monotonic() + patience(seconds)
    while any(map(runs, pids)):
        if time.monotonic() > end:
            return False
        gevent.sleep(0.01)
    return True
