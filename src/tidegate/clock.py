"""Time as the rest of the house sees it: monotonic for intervals, wall time for what people read.

Rooms take a :class:`Clock` where a test must be able to jump; everything else uses
:data:`SYSTEM_CLOCK`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol

#: Seconds that a long computation or a reader sleeps to let everybody else in. Not 0: then gevent
#: runs what is ready, up to fifty times, before it looks at sockets and timers again - with pieces
#: of 20 ms between, that was a second in which no request was heard.
GIVE_WAY: Final = 1e-6


class Clock(Protocol):
    """What a room may ask about time. ``testing/`` ships one that jumps."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; for intervals and deadlines."""

    def now(self) -> datetime:
        """Aware UTC wall time; for rows and logs, never for intervals."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)


SYSTEM_CLOCK: Clock = SystemClock()


def doubled(first: float, times: int, longest: float) -> float:
    """The pause before a further try: ``first`` doubled ``times`` times, ``longest`` at most."""
    # 2.0 ** 1024 raises OverflowError, and what is tried every five minutes gets there in four
    # days.
    return min(longest, first * 2.0 ** min(times, 64))
