"""Draining: a role was told to stop, and whoever streams must end in time, with a word.

    watcher (SIGTERM, reload) ──begin(grace)──► Drain ──callback(grace)──► each open stream

The streams keep running; each ends by itself before the grace is over, typed. Nothing here
closes anything: a stream belongs to its own greenlet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import final

from tidegate.clock import SYSTEM_CLOCK, Clock

Callback = Callable[[float], None]

ON_THEIR_WAY = 2.0
"""Seconds for which requests are still served: Gunicorn accepts for one, the network takes some."""


@final
class Drain:
    """One per process. Begins at most once; whoever registers later is told at once."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._callbacks: dict[int, Callback] = {}
        self._numbers = itertools.count()
        self._ends_at: float | None = None
        self._began_at = 0.0

    @property
    def draining(self) -> bool:
        """Whether the role is stopping: no new streams, no keep-alive."""
        return self._ends_at is not None

    @property
    def remaining(self) -> float:
        """Seconds until the last stream must have ended; infinite while nothing drains."""
        if self._ends_at is None:
            return float("inf")
        return max(0.0, self._ends_at - self._clock.monotonic())

    @property
    def refusing(self) -> bool:
        """Whether new requests are refused: those that were on their way have had their time.

        The listener is shared with the process that follows, and closed within a second; until
        then somebody has to serve what this process accepts, or a rolling restart loses calls.
        """
        if self._ends_at is None:
            return False
        lasted = self._clock.monotonic() - self._began_at
        return lasted > ON_THEIR_WAY or not self.remaining

    def begin(self, grace_seconds: float) -> None:
        """Tell everybody. Called by the role's watcher; a second call only shortens the grace.

        Callbacks run in the caller's greenlet, one after the other, and must not wait.
        """
        ends_at = self._clock.monotonic() + max(0.0, grace_seconds)
        # Never longer: streams have arranged themselves with the first word.
        if self._ends_at is not None and self._ends_at <= ends_at:
            return
        if self._ends_at is None:
            self._began_at = self._clock.monotonic()
        self._ends_at = ends_at
        # A copy: a stream that ends takes itself out.
        for callback in list(self._callbacks.values()):
            callback(self.remaining)

    def on_begin(self, callback: Callback) -> Callable[[], None]:
        """Have ``callback(seconds left)`` called when draining begins (at once if it has).

        Returns what takes it back; a stream calls that when it ends. It may be called again with
        less time when the grace is shortened.
        """
        number = next(self._numbers)
        self._callbacks[number] = callback
        # At once: it was opened by a request that was on its way.
        if self.draining:
            callback(self.remaining)
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        self._callbacks.pop(number, None)
