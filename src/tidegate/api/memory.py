"""Giving memory back after a peak of streams, and when no stream is open.

CPython keeps what thousands of streams needed, in free lists and half-empty blocks, and the C
library keeps the rest; without a nudge a process stays as large as its worst minute. The nudge
costs a few milliseconds, so it comes only when most of a large peak is over. What the C library
keeps is worth a look at every rest: it is a tenth of a millisecond, once a minute.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final, final

from gevent import get_hub

from tidegate.runtime.heap import Rest, trim
from tidegate.telemetry.logs import get_log

log = get_log("api")

#: Peaks below this many streams are not worth it.
LARGE: Final = 500
#: Seconds between the end of a peak and the nudge: what is over takes a moment to be let go.
SETTLE: Final = 1.0


@final
class Peak:
    """Watches how many streams are open. One per process."""

    def __init__(self) -> None:
        self._highest = 0
        self._timer: Any = None
        self._rest = Rest()

    def grown(self, count: int) -> None:
        """A stream began."""
        if count > self._highest:
            self._highest = count

    def shrunk(self, count: int) -> None:
        """A stream ended."""
        if self._timer is not None:
            return
        # At a quarter: at half, a load that swings around one level would be nudged again and
        # again.
        if self._highest >= LARGE and count * 4 <= self._highest:
            self._highest = count
            self._soon(self._give_back)
        elif not count and self._rest.due():
            self._soon(self._trim)

    def _soon(self, what: Callable[[], None]) -> None:
        self._timer = get_hub().loop.timer(SETTLE)
        self._timer.start(what)

    def _give_back(self) -> None:
        gc.collect()
        self._trim()
        log.debug("memory given back")

    def _trim(self) -> None:
        self._timer.close()
        self._timer = None
        trim()
