"""Log lines that somebody outside can cause as often as he likes: some of them, and how many more.

A plugin can send tens of thousands of back-calls a second that are refused. A line for each would
fill the disk and take more of the process's time than the refusals.
"""

from __future__ import annotations

from typing import Final, final

from tidegate.clock import SYSTEM_CLOCK, Clock

#: Seconds between two lines of a flood, and lines that may come at once before it is one.
EVERY: Final = 1.0
BURST: Final = 20


@final
class Sparing:
    """Says which lines are written. One per plugin, so that none silences another."""

    __slots__ = ("_burst", "_clock", "_every", "_next", "_unsaid")

    def __init__(
        self, every: float = EVERY, burst: int = BURST, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._every = every
        self._burst = burst
        self._clock = clock
        self._next = 0.0
        self._unsaid = 0

    def ask(self) -> int | None:
        """Whether a line may be written now: None, or how many were not since the last one."""
        now = self._clock.monotonic()
        # A debt that decays: a burst passes, a flood shows one line a while.
        self._next = max(self._next, now - self._every * (self._burst - 1))
        if self._next > now:
            self._unsaid += 1
            return None
        self._next += self._every
        # How many were not said goes with the next line, so that a log never understates.
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid
