"""What the fault tests share: hosts with the misbehaving plugin, and how long something took."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.hosting import PLUGINS, Running, package_of
from tests.patience import wait_until

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


def until(probe: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until ``probe`` is true; the seconds it took. The test fails when it does not get so."""
    started = time.monotonic()
    wait_until(probe, seconds)
    return time.monotonic() - started
