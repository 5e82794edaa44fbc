"""Notices a client that left, also on an idle stream, without a greenlet.

A server that only writes hears of a closed connection when it writes next. An io watcher on the
socket hears it at once: the socket becomes readable, and a peek finds the end of the stream.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, final

from gevent import get_hub

_READ: Final = 1


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
