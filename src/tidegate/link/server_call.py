"""A call as the host sees it, and how many of them are sent at once.

A plugin's reader appends chunks to ``call.buffer`` of many calls and then calls :func:`flush`
once: one frame per call, one ``sendmsg`` per connection and wake-up.

While a connection is full but moving, :func:`wait_writable` lets the plugin's reader pause, which
holds the plugin back. A connection that does not move at all (its process is stopped) is not
waited for: its calls pile up to their budget and end one by one, and nobody else notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, final

from tidegate.clock import SYSTEM_CLOCK
from tidegate.link.outbox import Outbox
from tidegate.wire.frames import FRAME_LIMIT, HEADER, Kind, encode
from tidegate.wire.heads import HostHead, PluginHead
from tidegate.wire.pieces import Pieces

#: Bytes waiting on a connection from which on the plugin's reader is held back.
CONGESTED: Final = 4 << 20
#: Seconds without progress after which a connection is not waited for any more.
STALLED: Final = 0.25
_CHUNK: Final = int(Kind.CHUNK)
_pack = HEADER.pack


class Carrier(Protocol):
    """The connection that a call came over."""

    outbox: Outbox
    calls: dict[int, ServerCall]

    def charge(self, call: ServerCall, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Count what waits against the call's budget: ``parts``, or what ends the call instead."""


@final
class ServerCall:
    """One call that a peer opened. It ends exactly once; anything after that is dropped.

    The handler sets ``on_cancel``; it is called at most once, from the connection's reader, when
    the caller gave up or its connection is gone - never after the call was ended from this side.
    ``on_over`` is called once when the call is over, whoever ended it; it must not wait.
    ``closed``: nothing more is taken. ``ended``: nothing more is sent. ``backlog``: bytes of it
    that wait for a full connection.
    """

    __slots__ = (
        "_connection", "backlog", "buffer", "closed", "closing", "ended", "head", "number",
        "on_cancel", "on_over", "payload",
    )  # fmt: skip

    def __init__(
        self,
        connection: Carrier,
        number: int,
        head: PluginHead | HostHead,
        payload: bytes | Pieces,
    ) -> None:
        self._connection = connection
        self.ended = False
        self.backlog = 0
        self.number = number
        self.head = head
        self.payload = payload
        self.buffer: list[bytes] = []
        self.closing: bytes | None = None
        self.closed = False
        self.on_cancel: Callable[[], None] | None = None
        self.on_over: Callable[[ServerCall], None] | None = None

    def send(self, chunk: bytes) -> None:
        """One chunk (JSON text without a newline), flushed at once."""
        if not self.closed:
            self.buffer.append(chunk)
            flush((self,))

    def conclude(self, error: bytes = b"") -> None:
        """Mark the end without sending: the next :func:`flush` of this call sends ERROR and END.

        For the plugin's reader, which ends many calls in one wake-up. ``error`` is JSON
        ``{error_type, message, args}``; empty for a normal end. The first one counts.
        """
        if not self.closed:
            self.closed = True
            self.closing = error
            if self.on_over is not None:
                self.on_over(self)

    def finish(self) -> None:
        """The normal end: what is buffered, then END."""
        self.conclude()
        flush((self,))

    def fail(self, error: bytes) -> None:
        """The end with an error: what is buffered, ERROR, END."""
        self.conclude(error)
        flush((self,))

    def cancelled(self) -> None:
        """The caller gave up, or its connection is gone. Called by the connection."""
        self.ended = True
        if not self.closed:
            self.closed = True
            self.buffer = []
            if self.on_cancel is not None:
                self.on_cancel()
            if self.on_over is not None:
                self.on_over(self)

    def _frames(self) -> list[bytes | memoryview]:
        """Everything that this call has to say now, as frames."""
        if self.ended:
            self.buffer = []  # of a reader that has not noticed yet
            return []
        parts: list[bytes | memoryview] = []
        if self.buffer:
            body = self.buffer[0] if len(self.buffer) == 1 else b"\n".join(self.buffer)
            self.buffer = []
            if len(body) <= FRAME_LIMIT:
                parts = [_pack(len(body), self.number, _CHUNK, 0, 0), body]
            else:
                parts += encode(Kind.CHUNK, self.number, body)
        if self.closing is not None:
            if self.closing:
                parts += encode(Kind.ERROR, self.number, self.closing)
            parts.append(_pack(0, self.number, Kind.END, 0, 0))
            self.ended = True
        return parts

    def over_budget(self, error: bytes) -> list[bytes | memoryview]:
        """The caller takes too little: the frames that end the call. Called by the connection."""
        # Not by `fail`: this is in the middle of a flush, and what is buffered is not sent.
        self.closed = True
        self.buffer = []
        self.closing = error
        parts = self._frames()
        if self.on_cancel is not None:
            self.on_cancel()
        if self.on_over is not None:
            self.on_over(self)
        return parts


def flush(calls: Iterable[ServerCall]) -> None:
    """Send what these calls have to say: one write per connection. Each call may come twice."""
    outs: dict[Carrier, list[bytes | memoryview]] = {}
    for call in calls:
        connection = call._connection
        parts = call._frames()
        if not parts:
            continue
        if connection.outbox.pending:
            parts = connection.charge(call, parts)
        if call.ended:
            connection.calls.pop(call.number, None)
        known = outs.get(connection)
        if known is None:
            outs[connection] = parts
        else:
            known += parts
    for connection, parts in outs.items():
        connection.outbox.write(parts)


def wait_writable(calls: Iterable[ServerCall], seconds: float = STALLED) -> None:
    """Pause while connections of these calls are full but moving, ``seconds`` at most.

    Called by a plugin's reader after :func:`flush`: the pause holds the plugin back instead of
    piling up what a busy api process cannot take yet.
    """
    for connection in {call._connection for call in calls}:
        # One after the other, each for itself: a plugin of several callers waits for the sum.
        outbox = connection.outbox
        if outbox.pending < CONGESTED:
            continue
        if SYSTEM_CLOCK.monotonic() - outbox.progressed_at < STALLED:
            outbox.wait_drained(seconds)
