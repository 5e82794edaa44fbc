"""A streamed answer as gzip, each piece readable as soon as it arrives.

    source --bodies--> events --bytes--> deflate, flushed per piece --> client
       \\--the end--> one more body, so that the trailer (sum and length) goes out behind it

For the transaction route alone: functions pay for what crosses the network (spec/http/01, 3.18).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from tidegate.doors.routes import AnswerHead, Source, StreamResponse
from tidegate.errors import CallFailed

_END: Final = b"\0"
"""No body of a link is that: they are JSON."""
_GZIP: Final = 16 + zlib.MAX_WBITS


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip, by its ``Accept-Encoding``."""
    for one in accept_encoding.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() in ("gzip", "*"):
            # "q=0" is how a client says that it cannot take it (RFC 9110 section 12.4.2).
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def compressed(answer: StreamResponse) -> StreamResponse:
    """``answer`` with its body as gzip. It must have no head of its own."""
    body = _Body(answer.source, answer.events, answer.error_event)
    headers = (
        ("Content-Type", answer.content_type),
        ("Content-Encoding", "gzip"),
        ("Vary", "Accept-Encoding"),
    )
    return replace(
        answer,
        source=body,
        events=body.events,
        error_event=body.error_event if answer.error_event is not None else None,
        head=lambda: AnswerHead(200, headers),
    )


@final
class _Body:
    """A ``Source`` that says its end as one body more, and what makes bytes of its bodies."""

    def __init__(
        self,
        source: Source,
        events: Callable[[list[bytes]], list[bytes]],
        error_event: Callable[[CallFailed], bytes] | None,
    ) -> None:
        self._source = source
        self._events = events
        self._error_event = error_event
        self._ended = False
        # Fast: an answer is sent once, and a call of a plugin waits for it.
        self._deflate = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, _GZIP)

    @property
    def ready(self) -> bool:
        """Whether ``take`` would not wait."""
        return self._ended or self._source.ready

    def take(self) -> list[bytes]:
        """As ``Source.take``, and one body more at the end."""
        if self._ended:
            return []
        bodies = self._source.take()
        if bodies:
            return bodies
        self._ended = True
        # A source's end makes no bytes, but gzip's does: sum and length, without which the
        # client's reader fails.
        return [_END]

    def abort(self, error: CallFailed) -> None:
        """As ``Source.abort``."""
        self._source.abort(error)

    def close(self) -> None:
        """As ``Source.close``."""
        self._source.close()

    def events(self, bodies: list[bytes]) -> list[bytes]:
        """What goes over the wire for these bodies."""
        if bodies == [_END]:
            return [self._deflate.flush(zlib.Z_FINISH)]
        pieces = [self._deflate.compress(piece) for piece in self._events(bodies)]
        # Flushed, or the compressor keeps up to 32 KiB back and the function waits for an answer
        # that was given.
        return [b"".join([*pieces, self._deflate.flush(zlib.Z_SYNC_FLUSH)])]

    def error_event(self, error: CallFailed) -> bytes:
        """The error that ended the answer, and the trailer."""
        said = self._error_event(error) if self._error_event is not None else b""
        return self._deflate.compress(said) + self._deflate.flush(zlib.Z_FINISH)
