"""Giving memory back after a peak of streams.

CPython keeps what thousands of streams needed, in free lists and half-empty blocks, and the C
library keeps the rest; without a nudge a process stays as large as its worst minute. The nudge
costs a few milliseconds, so it comes only when most of a large peak is over.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any, Final, final

from gevent import get_hub

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

    def grown(self, count: int) -> None:
        """A stream began."""
        if count > self._highest:
            self._highest = count

    def shrunk(self, count: int) -> None:
        """A stream ended."""
        # Most of it is over. At half, a load that swings around one level would be nudged again
        # and again.
        if self._highest >= LARGE and count * 4 <= self._highest and self._timer is None:
            self._highest = count
            self._timer = get_hub().loop.timer(SETTLE)
            self._timer.start(self._give_back)

    def _give_back(self) -> None:
        self._timer.close()
        self._timer = None
        # First this, then the C library: cycles hold what malloc_trim is to give back.
        gc.collect()
        if _trim is not None:
            _trim(0)
        log.debug("memory given back")


def _find_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only


_trim = _find_trim()
