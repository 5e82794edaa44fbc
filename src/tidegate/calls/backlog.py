"""What a call's consumer has not taken yet: memory first, then a file, within the call's budget.

The end of memory is not the end of the call: a download of a gigabyte to a slow client is no fault
of anybody. Only what is over both ends it, and that call alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

from tidegate.calls.counters import COUNTERS
from tidegate.calls.spool import Spool
from tidegate.deadline import Budget


@final
class Backlog:
    """Bodies in the order in which they came. Owned by one stream; nothing here waits."""

    __slots__ = ("_bodies", "_budget", "_folder", "_held", "_spool")

    def __init__(self, budget: Budget, folder: Path | None) -> None:
        """``folder`` of the spool file; without one there is memory only."""
        self._budget = budget
        self._folder = folder
        self._bodies: list[bytes] = []
        self._held = 0
        self._spool: Spool | None = None

    def __bool__(self) -> bool:
        # A spool is never empty here: it goes with its last body.
        return bool(self._bodies) or self._spool is not None

    def push(self, body: bytes) -> bool:
        """Whether there was room for it. OSError when the disk does not take it."""
        # One body always fits, however large: it is in memory already, and refusing it would end
        # calls whose single chunk is over the budget although nothing waits.
        if self._spool is None and (
            not self._bodies or self._held + len(body) <= self._budget.memory
        ):
            self._bodies.append(body)
            self._held += len(body)
            return True
        # Both together against the second limit: it is the whole of what one call may leave lying
        # around.
        if self._folder is None or self.waiting + len(body) > self._budget.spool:
            return False
        if self._spool is None:
            self._spool = Spool(self._folder)
        self._spool.append(body)
        COUNTERS.spooled_bytes += len(body)
        return True

    def take(self) -> list[bytes]:
        """What is next, all of it that is in memory; [] when nothing waits. OSError as the disk."""
        # Memory first: what is in it came before the spool was begun, and nothing goes there until
        # that is used up.
        if self._bodies:
            bodies, self._bodies = self._bodies, []
            self._held = 0
            return bodies
        if self._spool is None:
            return []
        bodies = self._spool.take()
        if not self._spool.size:
            self._drop_spool()
        return bodies

    def drop(self) -> None:
        """Forget everything and give the disk back. Idempotent."""
        self._bodies = []
        self._held = 0
        self._drop_spool()

    @property
    def waiting(self) -> int:
        """Bytes that wait, on the disk with what it costs to keep them apart."""
        return self._held + (self._spool.size if self._spool is not None else 0)

    def _drop_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
