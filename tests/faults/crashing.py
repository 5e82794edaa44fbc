"""A worker that is killed at its N-th effect: whatever it does to rows, blobs or the host.

crash = Crash(nth=7)
house.sender.runner = crashing_worker(house, crash)
...
assert crash.reached

Like -9 it takes the whole worker: after that moment no greenlet of it has any effect any more,
and nobody cleans up. A transaction that was not committed is rolled back, as its server does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.installs.conftest import House, Killed
from tidegate.installs import JobRunner


class Crash:
    """Counts effects; the ``nth`` kills. ``places`` are the names of those that happened."""

    def __init__(self, nth: int) -> None:
        self._nth = nth
        self.places: list[str] = []
        self.reached = False

    def at(self, place: str) -> None:
        """An effect is about to happen, or has just happened."""
        if not self.reached:
            self.places.append(place)
            self.reached = len(self.places) == self._nth
        if self.reached:
            raise Killed


class _Rows:
    def __init__(self, real: Any, crash: Crash) -> None:
        self._real, self._crash = real, crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._crash.at("begin")
        with self._real.write() as conn:
            yield conn
            self._crash.at("commit")
        self._crash.at("committed")


class _Blobs:
    def __init__(self, real: Any, crash: Crash) -> None:
        self._real, self._crash = real, crash

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*given: Any) -> Any:
            self._crash.at(f"before {name}")
            found = method(*given)
            self._crash.at(f"after {name}")
            return found

        return call


class _Host:
    def __init__(self, real: Any, crash: Crash) -> None:
        self._real, self._crash = real, crash

    def run(self, op: str, *given: Any) -> Iterator[dict[str, Any]]:
        self._crash.at(f"asking {op}")
        for progress in self._real.run(op, *given):
            self._crash.at(f"{op}: {progress.get('step', '')}")
            yield progress
        self._crash.at(f"asked {op}")


def crashing_worker(house: House, crash: Crash) -> JobRunner:
    """A worker for ``house`` whose every effect is counted."""
    return JobRunner(
        house.settings,
        _Rows(house.database, crash),  # type: ignore[arg-type]
        _Blobs(house.blobs, crash),  # type: ignore[arg-type]
        _Host(house.host, crash),
        house.sender,
        house.owners,
    )
