"""A host for tests of installations: does in this process what the test says.

host = ScriptedHost()
host.fail("install", EnvironmentFailed("no matching distribution"))
with host.held("install"): ...        # every install waits here until the block ends
host.count("install")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from gevent.event import Event

from tidegate.deadline import Deadline

INSTALL_STEPS = (
    {"step": "unpack", "message": "unpacking the package"},
    {"step": "environment", "message": "installing dependencies"},
    {"step": "start", "message": "starting the plugin"},
)


@final
class ScriptedHost:
    """Follows ``tidegate.installs.HostControl``. Records each operation it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.built = False
        """What ``prepare`` answers: whether something had to be built."""
        self.holds: list[str] = []
        """Versions that ``held`` tells of: they have files or a process."""
        self.steps: tuple[dict[str, Any], ...] = INSTALL_STEPS
        self.waiting: Counter[str] = Counter()
        """How many calls wait at a place where they are held."""
        self._gates: dict[str, Event] = {}
        self._failures: dict[str, list[Exception]] = {}

    def run(self, op: str, params: dict[str, Any], deadline: Deadline) -> Iterator[dict[str, Any]]:
        """Yields the steps of an install; holds and fails where the test said so."""
        self.calls.append((op, params))
        done = False
        try:
            for step in self.steps if op == "install" else ():
                yield dict(step)
                self._wait(f"{op}:{step['step']}", deadline)
            self._wait(op, deadline)
            if self._failures.get(op):
                raise self._failures[op].pop(0)
            if op == "prepare":
                yield {"built": self.built}
            elif op == "held":
                yield from ({"identifier": one} for one in self.holds)
            done = True
        finally:
            if not done:
                self.cancelled.append(op)

    def count(self, op: str) -> int:
        """How often ``op`` was asked for."""
        return sum(one == op for one, _ in self.calls)

    def fail(self, op: str, *errors: Exception) -> None:
        """The next calls of ``op`` fail with these, one each."""
        self._failures.setdefault(op, []).extend(errors)

    def forgive(self, op: str) -> None:
        """What of :meth:`fail` did not happen yet will not."""
        self._failures.pop(op, None)

    @contextmanager
    def held(self, place: str) -> Iterator[Event]:
        """Calls wait at ``place`` (an op, or ``install:environment``) until the block ends.

        Gives the event that lets them go earlier.
        """
        gate = self._gates[place] = Event()
        try:
            yield gate
        finally:
            gate.set()

    def _wait(self, place: str, deadline: Deadline) -> None:
        gate = self._gates.get(place)
        if gate is None:
            return
        self.waiting[place] += 1
        try:
            if not gate.wait(deadline.remaining()):
                raise deadline.error()
        finally:
            self.waiting[place] -= 1
