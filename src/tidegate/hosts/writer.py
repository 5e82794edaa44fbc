"""Standard input of a plugin: one line after the other, never half of one, never blocking.

A line goes out at once when nothing waits and the pipe takes it. Else it waits for the one writer
greenlet; a plugin that does not read costs the calls whose deadline passes meanwhile, and new
ones when the budget is used up, nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, final

from gevent import get_hub, monkey
from gevent.event import Event

_WRITE: Final = 2
_close = monkey.get_original("os", "close")


@final
class Writer:
    """Owns one descriptor. ``run`` is the body of its greenlet.

    ``broken`` is called once, by whoever writes, when the other end was closed.
    """

    def __init__(self, fd: int, budget: int, broken: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._budget = budget
        self._hub = get_hub()
        self._watcher: Any = self._hub.loop.io(fd, _WRITE)
        self._waiting: dict[object, bytes] = {}
        self._current: memoryview | None = None
        self._work = Event()
        self._moved = Event()
        self._on_broken = broken
        self._closed = False
        self.pending = 0

    @property
    def broken(self) -> bool:
        """Whether the other end was closed, or this one: nothing goes out any more."""
        return self._closed

    def send(self, line: bytes, key: object | None = None) -> bool:
        """Write ``line`` and its newline. False when the budget does not admit it.

        ``key`` names the line for :meth:`discard`. One line is always admitted, however long.
        """
        if self._closed:
            return True  # the process is going: its calls end by that
        if self._current is None and not self._waiting:
            self._begin(line)
            return True
        if self.pending + len(line) > self._budget:
            return False
        self._waiting[object() if key is None else key] = line
        self.pending += len(line)
        return True

    def wait_below(self, size: int) -> None:
        """Wait until fewer than ``size`` bytes wait here, or nothing goes out any more.

        For whoever can be held back: answers to back-calls. Killed while it waits when its
        session ends.
        """
        while self.pending >= size and not self._closed:
            self._moved.clear()
            self._moved.wait()

    def discard(self, key: object) -> None:
        """Take a line back that waits. One that has begun goes out whole: half a line is noise."""
        line = self._waiting.pop(key, None)
        if line is not None:
            self.pending -= len(line)
            self._moved.set()

    def run(self) -> None:
        """Write what waits whenever the pipe takes it. Body of the writer greenlet."""
        while True:
            self._work.wait()
            while self._current is not None:
                self._hub.wait(self._watcher)
                self._push()
            self._work.clear()

    def close(self) -> None:
        """Give the descriptor back; what waits is dropped. Nobody may be in :meth:`run`."""
        self._closed = True
        self._drop()
        if self._fd >= 0:
            self._watcher.close()
            fd, self._fd = self._fd, -1
            _close(fd)

    def _begin(self, line: bytes) -> None:
        self._current = memoryview(line)
        self.pending += len(line)
        self._push()
        if self._current is not None:
            self._work.set()

    def _push(self) -> None:
        """Write on where the last write stopped, and begin what waits, until the pipe is full."""
        while self._current is not None:
            left = len(self._current)
            try:
                written = os.writev(self._fd, (self._current, b"\n"))
            except BlockingIOError:
                return
            except OSError:
                self._closed = True
                self._drop()
                self._on_broken()
                return
            self.pending -= min(written, left)
            self._moved.set()
            if written <= left:
                self._current = self._current[written:]
                return
            self._current = self._next()

    def _next(self) -> memoryview | None:
        if not self._waiting:
            return None
        return memoryview(self._waiting.pop(next(iter(self._waiting))))

    def _drop(self) -> None:
        self._waiting.clear()
        self._current = None
        self.pending = 0
        self._moved.set()
