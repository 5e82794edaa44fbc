"""The deadlines of all sessions of one plugin process, on one timer.

Sessions come and go by thousands a second and nearly all end long before their time, so adding
and discarding must cost next to nothing: deadlines are rounded up to tenths of a second and kept
in one set per tenth. Sets that became empty are taken away by the hundred.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final, final

from gevent import get_hub

from tidegate.clock import SYSTEM_CLOCK

_PER_SECOND: Final = 10
#: Sessions that are ended in one turn of the hub. Ten thousand calls that waited for one plugin's
#: start have the same deadline, and each end is a frame of its own: half a second without a pause.
_AT_ONCE: Final = 256
#: Empty sets that are left alone. They wait for a time ten minutes ahead: kept until then, each
#: busy plugin's would be 2 MB.
_SPARE: Final = 64
_now = SYSTEM_CLOCK.monotonic


@final
class Deadlines:
    """Calls ``expire(session_id)`` in the hub when a session's time is over; it must not wait.

    Late by a tenth of a second at most, and by what a crowd that is due together takes.
    :meth:`close` gives the timer back.
    """

    __slots__ = ("_empty", "_expire", "_heap", "_sets", "_ticks", "_timer")

    def __init__(self, expire: Callable[[str], None]) -> None:
        self._expire = expire
        self._ticks: dict[str, int] = {}
        self._sets: dict[int, set[str]] = {}
        self._heap: list[int] = []
        self._empty = 0
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, session_id: str, seconds: float) -> None:
        """End ``session_id`` after ``seconds``."""
        tick = int((_now() + seconds) * _PER_SECOND) + 1
        self._ticks[session_id] = tick
        due = self._sets.get(tick)
        if due is None:
            due = self._sets[tick] = set()
            heapq.heappush(self._heap, tick)
            if self._heap[0] == tick:
                self._arm()
        elif not due:
            self._empty -= 1
        due.add(session_id)

    def remaining(self, session_id: str) -> float:
        """Seconds until ``session_id`` is ended; 0 when it is not known."""
        tick = self._ticks.get(session_id)
        return 0.0 if tick is None else max(0.0, tick / _PER_SECOND - _now())

    def discard(self, session_id: str) -> None:
        """The session ended. Idempotent."""
        tick = self._ticks.pop(session_id, None)
        if tick is not None:
            due = self._sets[tick]
            due.discard(session_id)
            if not due:
                self._emptied()

    def close(self) -> None:
        """Forget everything. Nothing expires after this."""
        self._ticks.clear()
        self._sets.clear()
        self._heap.clear()
        self._empty = 0
        self._disarm()

    def _emptied(self) -> None:
        """A set is empty now. To look for its place in the heap would cost each session more than
        the rest together: the heap is made anew when half of it is for nothing."""
        self._empty += 1
        if self._empty > _SPARE and self._empty * 2 > len(self._heap):
            self._sets = {tick: due for tick, due in self._sets.items() if due}
            self._heap = sorted(self._sets)
            self._empty = 0

    def _fire(self) -> None:
        # Taken out before the first one hears of it: what is done then may discard another.
        over = self._due()
        for session_id in over:
            self._ticks.pop(session_id, None)
        try:
            for session_id in over:
                self._expire(session_id)
        finally:
            self._arm()

    def _due(self) -> list[str]:
        now = _now() * _PER_SECOND
        over: list[str] = []
        while self._heap and self._heap[0] <= now and len(over) < _AT_ONCE:
            due = self._sets[self._heap[0]]
            self._empty -= not due
            while due and len(over) < _AT_ONCE:
                over.append(due.pop())
            if not due:
                del self._sets[heapq.heappop(self._heap)]
        return over

    def _arm(self) -> None:
        self._disarm()
        if self._heap:
            wait = max(0.0, self._heap[0] / _PER_SECOND - _now())
            self._timer = get_hub().loop.timer(wait)
            self._timer.start(self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
