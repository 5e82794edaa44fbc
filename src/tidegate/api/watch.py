"""Notices a client that left, also on an idle stream, without a greenlet.

A server that only writes hears of a closed connection when it writes next. An io watcher on the
socket hears it at once: the socket becomes readable, and a peek finds the end of the stream.

Most calls are over in milliseconds and would pay more for the watcher than for anything else in
this room, so :class:`LateWatches` gives one to those only that live longer than a moment.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Protocol, final

from gevent import get_hub

_READ: Final = 1
#: Seconds that a stream is not watched for; how late a client's leaving may be noticed at most.
YOUNG: Final = 0.1


@final
class ClientWatch:
    """Calls ``left`` once, in the event loop, when the client closed its side.

    A client that closes only its sending half counts as one that left; HTTP clients do not do
    that. When the client has sent its next request already, leaving cannot be seen any more.
    """

    __slots__ = ("_io", "_left", "_sock")

    def __init__(self, sock: Any, left: Callable[[], None]) -> None:
        self._sock = sock
        self._left = left
        self._io = get_hub().loop.io(sock.fileno(), _READ)
        self._io.start(self._readable)

    def stop(self) -> None:
        """Watch no more. Idempotent; must be called before the socket is used otherwise."""
        self._io.stop()
        self._io.close()

    def _readable(self) -> None:
        before = self._sock.gettimeout()
        self._sock.settimeout(0.0)  # never wait in the event loop
        try:
            data = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        finally:
            self._sock.settimeout(before)
        self._io.stop()
        if not data:
            self._left()


class Watched(Protocol):
    """A stream whose client may leave."""

    def watch(self) -> None:
        """Begin to watch. Called once, in the event loop, when the stream is not young any more."""


@final
class LateWatches:
    """Has each stream watch its client when it is :data:`YOUNG` seconds old. One per process."""

    def __init__(self) -> None:
        self._young: set[Watched] = set()
        self._timer: Any = None

    def add(self, stream: Watched) -> None:
        """It begins."""
        self._young.add(stream)
        if self._timer is None:
            self._timer = get_hub().loop.timer(YOUNG)
            self._timer.start(self._due)

    def discard(self, stream: Watched) -> None:
        """It ended. Idempotent."""
        self._young.discard(stream)

    def _due(self) -> None:
        self._timer.close()
        self._timer = None
        # One timer for all that began in this tenth of a second. Those that are over have left the
        # set already.
        young, self._young = self._young, set()
        for stream in young:
            stream.watch()
