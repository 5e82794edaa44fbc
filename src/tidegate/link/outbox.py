"""The sending half of a connection: never blocks the greenlet that has something to say.

What the socket takes at once goes out in one ``sendmsg``; the rest waits in order and is sent by
a write watcher of the hub's loop, without a greenlet of its own.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, final

from gevent import get_hub
from gevent.event import Event

from tidegate.clock import SYSTEM_CLOCK

#: Below this many bytes, pieces are joined: one copy is cheaper than a longer vector.
_JOIN_BELOW: Final = 1 << 16
#: Pieces per system call; the kernel takes 1024 at most.
_VECTOR: Final = 512
#: From this many bytes on even many pieces are not joined: the copy would stop the hub.
_LONG: Final = 4 << 20
_WRITE: Final = 2


@final
class Outbox:
    """Ordered, non-blocking output of one socket. Owned by the connection that made it."""

    def __init__(self, sock: socket.socket, on_broken: Callable[[], None]) -> None:
        # The bare socket's: gevent's own would wait where it is to say that the socket is full.
        self._send = sock.sendmsg if not hasattr(sock, "_sock") else sock._sock.sendmsg
        self._fd = sock.fileno()
        self._on_broken = on_broken
        self._waiting: deque[bytes | memoryview] = deque()
        self._watcher: Any = None
        self._drained: Event | None = None
        self._closed = False
        self.pending = 0
        self.progressed_at = SYSTEM_CLOCK.monotonic()
        self.on_drained: Callable[[], None] | None = None

    def write(self, parts: list[bytes | memoryview]) -> None:
        """Send ``parts`` after everything before them. Dropped when the socket is gone."""
        if self._closed:
            return
        size = sum(map(len, parts))
        if self._waiting:
            self._waiting.extend(parts)
            self.pending += size
            return
        if len(parts) > 1 and (size < _JOIN_BELOW or (len(parts) > _VECTOR and size < _LONG)):
            parts = [b"".join(parts)]
        # Tried at once: nearly always the socket takes it, and no watcher is needed.
        sent = self._try(parts if len(parts) <= _VECTOR else parts[:_VECTOR])
        if sent < size and not self._closed:
            self._waiting.extend(parts)
            self.pending = size
            self._eat(sent)
            self._start_watching()

    def wait_drained(self, seconds: float) -> bool:
        """Wait until nothing is pending, ``seconds`` at most. True when it is empty."""
        if not self._waiting:
            return True
        if self._drained is None:
            self._drained = Event()
        return bool(self._drained.wait(seconds))

    def close(self) -> None:
        """Stop sending; what waits is dropped. Idempotent."""
        self._closed = True
        self._waiting.clear()
        self.pending = 0
        self._stop_watching()  # wakes whoever waits for it to be empty, too

    def _try(self, parts: list[bytes | memoryview]) -> int:
        try:
            sent = int(self._send(parts))
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EINTR:
                return 0
            self.close()
            self._on_broken()
            return 0
        self.progressed_at = SYSTEM_CLOCK.monotonic()
        return sent

    def _eat(self, sent: int) -> None:
        waiting = self._waiting
        self.pending -= sent
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.popleft())
        if sent:
            waiting[0] = memoryview(waiting[0])[sent:]

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = get_hub().loop.io(self._fd, _WRITE)
            self._watcher.start(self._writable)

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _writable(self) -> None:
        self._eat(self._try(list(islice(self._waiting, _VECTOR))))
        if not self._waiting:
            self._stop_watching()
            if self.on_drained is not None and not self._closed:
                self.on_drained()
