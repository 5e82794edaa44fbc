"""Standard input of a plugin: one line after the other, never half of one, never blocking.

A line goes out at once when nothing waits and the pipe takes it. Else it waits for the one writer
greenlet; a plugin that does not read costs the calls whose deadline passes meanwhile, and new
ones when the budget is used up, nobody else.

The budget is for what waits: neither the line that is going out counts nor one that is longer
than the whole budget, so that a huge line costs small ones their time and never their admission.
A long line comes in pieces (``wire.pieces``) and goes out as them: joining it would be a copy.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, final

from gevent import get_hub, monkey
from gevent.event import Event

from tidegate.wire.pieces import Pieces, size_of

#: Pieces that one system call takes; IOV_MAX is 1024.
_VECTOR: Final = 64
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
        # A dict as a queue: in order, and a line in its middle can be taken back at once.
        self._waiting: dict[object, bytes | Pieces] = {}
        self._current: deque[bytes | memoryview] = deque()
        self._huge: object | None = None
        self._work = Event()
        self._moved = Event()
        self._on_broken = broken
        self._closed = False
        self._queued = 0
        self.pending = 0

    @property
    def broken(self) -> bool:
        """Whether the other end was closed, or this one: nothing goes out any more."""
        return self._closed

    def send(self, line: bytes | Pieces, key: object | None = None) -> bool:
        """Write ``line`` and its newline. False when the budget does not admit it.

        ``key`` names the line for :meth:`discard`. One line longer than the budget may wait.
        """
        if self._closed:
            return True  # the process is going: its calls end by that
        size = size_of(line)
        # Nearly always: no greenlet is woken, and the plugin has it within this turn.
        if not self._current:
            self._begin(line, size)
            return True
        name = object() if key is None else key
        if size > self._budget and self._huge is None:
            self._huge = name
        elif self._queued + size > self._budget:
            return False
        else:
            self._queued += size
        self._waiting[name] = line
        self.pending += size
        return True

    def wait_below(self, size: int) -> None:
        """Wait until fewer than ``size`` bytes wait here, or nothing goes out any more.

        For whoever can be held back: answers to back-calls. Killed while it waits when its
        session ends.
        """
        # Looked at again: several wait for the same room.
        while self.pending >= size and not self._closed:
            self._moved.clear()
            self._moved.wait()

    def discard(self, key: object) -> None:
        """Take a line back that waits. One that has begun goes out whole: half a line is noise."""
        line = self._waiting.pop(key, None)
        if line is not None:
            self._dequeued(key, line)
            self.pending -= size_of(line)
            self._moved.set()

    def run(self) -> None:
        """Write what waits whenever the pipe takes it. Body of the writer greenlet."""
        while True:
            self._work.wait()
            while self._current:
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

    def _begin(self, line: bytes | Pieces, size: int) -> None:
        self.pending += size
        self._load(line)
        self._push()
        if self._current:
            self._work.set()

    def _load(self, line: bytes | Pieces) -> None:
        """``line`` and its newline are what goes out now. Nothing else may be."""
        if isinstance(line, bytes):
            self._current.append(line)
        else:
            self._current.extend(line)
        # A piece of its own: to add it to the line would copy the line.
        self._current.append(b"\n")

    def _push(self) -> None:
        """Write on where the last write stopped, and begin what waits, until the pipe is full."""
        current = self._current
        while current:
            parts = current if len(current) <= _VECTOR else list(islice(current, _VECTOR))
            try:
                written = os.writev(self._fd, parts)
            # Not an error: the pipe is full, and its watcher says when it is not.
            except BlockingIOError:
                return
            except OSError:
                self._closed = True
                self._drop()
                self._on_broken()
                return
            full = self._eat(written)
            self._moved.set()
            # A short write means a full pipe; asking again would only cost a call.
            if full:
                return
            if not current:
                self._next()

    def _eat(self, written: int) -> bool:
        """Take what was written off; True when the pipe did not take a whole piece."""
        current = self._current
        while written:
            piece = current[0]
            if written < len(piece):
                current[0] = memoryview(piece)[written:]
                self.pending -= written
                return True
            written -= len(piece)
            current.popleft()
            if current:  # the last piece is the newline, which nobody counted
                self.pending -= len(piece)
        return False

    def _next(self) -> None:
        if self._waiting:
            key = next(iter(self._waiting))
            line = self._waiting.pop(key)
            self._dequeued(key, line)
            self._load(line)

    def _dequeued(self, key: object, line: bytes | Pieces) -> None:
        if key is self._huge:
            self._huge = None
        else:
            self._queued -= size_of(line)

    def _drop(self) -> None:
        self._waiting.clear()
        self._current.clear()
        self._huge = None
        self._queued = self.pending = 0
        self._moved.set()
