"""Notices a client whose machine or network is gone: no FIN, no RST, only silence (T-B2).

Two cases, because the kernel has two clocks:

* nothing is on its way: TCP's keep-alive asks the client, and its error reaches
  :class:`~tidegate.api.watch.ClientWatch` like any other end (``runtime/keepalive.py``)
* bytes are on their way: the kernel sends them again and again for a quarter of an hour and asks
  nothing else, so :class:`Silences` looks when the client last acknowledged anything

TCP_USER_TIMEOUT would do both, but it also cuts a client that is there and does not read
(its window is closed): a slow consumer must not be cut lightly (T-B1).
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final, Protocol, final

from gevent import get_hub

_LOOKS: Final = 4
"""Looks at a stream within the time after which it counts as gone."""
# struct tcp_info: probes is byte 3, unacked the word at 24, last_ack_recv (ms) the word at 56.
_INFO: Final = struct.Struct("3xB20xI28xI")


def unanswered(sock: Any) -> float:
    """Seconds for which the client has acknowledged nothing of what it was sent; 0 if all is well.

    A client that does not read still acknowledges the kernel's questions for its window.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return 0.0  # closed meanwhile, or no TCP: somebody else notices
    probes, unacked, since = _INFO.unpack(info)
    # One probe may be on its way at any moment; two without an answer are silence. Without bytes
    # in flight and without probes an old acknowledgement says nothing.
    return since / 1000 if unacked or probes > 1 else 0.0


class Listened(Protocol):
    """A stream whose client may fall silent."""

    @property
    def socket(self) -> Any:
        """The client's connection."""

    def left(self) -> None:
        """Its client is gone. Called once, in the event loop."""


@final
class Silences:
    """Looks at the streams of this process from time to time. One per process."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` without an acknowledgement after which a client is gone."""
        self._seconds = seconds
        self._streams: set[Listened] = set()
        self._timer: Any = None

    def add(self, stream: Listened) -> None:
        """From now on ``stream`` is looked at."""
        self._streams.add(stream)
        if self._timer is None:
            every = self._seconds / _LOOKS
            # One timer for all streams: ten thousand of their own cost more than the looks. It
            # does not keep a loop alive that has nothing else to do.
            self._timer = get_hub().loop.timer(every, every, ref=False)
            self._timer.start(self._look)

    def discard(self, stream: Listened) -> None:
        """It ended. Idempotent."""
        self._streams.discard(stream)

    def _look(self) -> None:
        if not self._streams:
            # Nobody to look at: an idle process must not wake four times a minute.
            self._timer.close()
            self._timer = None
            return
        for stream in [one for one in self._streams if unanswered(one.socket) > self._seconds]:
            self._streams.discard(stream)
            stream.left()
