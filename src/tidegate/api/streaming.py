"""Streamed answers, written straight to the client's socket.

gunicorn hands the socket over (``environ["gunicorn.socket"]``); the request's own greenlet takes
what is ready and writes it in one call, head and end included where they fall together. Nothing
is written before the first chunk: Dify's time-out for the first token counts on that
(spec/dify/client.md section 1). Where no socket can be had, ``iterating`` does the same.

Framing: chunked for HTTP/1.1, which keeps the connection; for HTTP/1.0 the end of the connection
is the end of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, final

from gevent import get_hub, sleep

from tidegate.api.memory import Peak
from tidegate.api.silence import Silences
from tidegate.api.transmit import CHUNKED, hang_up, head, send_all
from tidegate.api.watch import ClientWatch, LateWatches
from tidegate.clock import GIVE_WAY
from tidegate.doors.routes import AnswerHead, Outcome, Response, StreamResponse
from tidegate.errors import CallFailed, DeadlineExceeded, IdleTimeout, ServerStopping
from tidegate.runtime.drain import Drain
from tidegate.wire.sse import LAST_CHUNK, chunked

#: Small writes are gathered while more is ready, up to this many bytes.
_GATHER: Final = 1 << 16
#: More than this is not formatted and sent at a stretch: other streams wait meanwhile.
_SLICE: Final = 1 << 20
_CLOSE: Final = ("Connection", "close")
_TIMEOUTS: Final = (DeadlineExceeded, IdleTimeout)


def outcome_of(error: CallFailed) -> Outcome:
    """How a call that ended with ``error`` is counted."""
    return Outcome.TIMEOUT if isinstance(error, _TIMEOUTS) else Outcome.ERROR


@final
class OpenStreams:
    """The streams of this process that a drain must end: typed, and in time.

    ``drain`` tells that the process stops; shortly before its grace is over, each stream that
    still runs is aborted with ServerStopping, and its own greenlet says so to the client.
    """

    def __init__(self, drain: Drain, silence: float = 60.0) -> None:
        """``silence``: TIDEGATE_CLIENT_SILENCE, seconds after which a mute client is gone."""
        self._drain = drain
        self._streams: set[Any] = set()
        self._timer: Any = None
        self._aborted: ServerStopping | None = None
        self._idle: set[Any] = set()
        self._peak = Peak()
        self.watches = LateWatches()
        self.silences = Silences(silence)
        drain.on_begin(self._begun)

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def draining(self) -> bool:
        """Whether the process stops: connections are not kept."""
        return self._drain.draining

    @property
    def refusing(self) -> bool:
        """Whether requests come too late to be served by this process."""
        return self._drain.refusing

    def add(self, source: Any) -> None:
        """From now on ``source`` is aborted when the grace is over."""
        self._streams.add(source)
        self._peak.grown(len(self._streams))
        if self._aborted is not None:
            source.abort(self._aborted)

    def discard(self, source: Any) -> None:
        """It ended by itself."""
        self._streams.discard(source)
        self._peak.shrunk(len(self._streams))

    @contextmanager
    def idle(self, sock: Any) -> Iterator[None]:
        """A kept connection that waits for its next request: a drain ends it at once."""
        self._idle.add(sock)
        try:
            yield
        finally:
            self._idle.discard(sock)

    def _begun(self, grace: float) -> None:
        # They wait for a request that this process would refuse. Hanging up lets their clients
        # connect anew, elsewhere, before they have sent something that may or may not have been
        # run.
        for sock in list(self._idle):
            hang_up(sock)
        if self._timer is not None:
            self._timer.close()
        # The typed end has to be written, and read by a slow client, before gunicorn kills the
        # process at the end of the same grace.
        margin = min(1.0, grace / 4)
        self._timer = get_hub().loop.timer(max(0.001, grace - margin))
        self._timer.start(self._abort_all, grace)

    def _abort_all(self, grace: float) -> None:
        self._aborted = ServerStopping(
            f"the server is stopping; running calls had {grace:g} s to end (TIDEGATE_GRACE)",
            seconds=grace,
        )
        for source in list(self._streams):
            source.abort(self._aborted)


@final
class SocketStream:
    """One streamed answer on the client's socket. ``run`` is called once."""

    __slots__ = (
        "_answer", "_chunked", "_closing", "_gone", "_head_sent", "_own_head", "_sock",
        "_streams", "_watch", "_whole", "kept",
    )  # fmt: skip

    def __init__(
        self, environ: dict[str, Any], answer: StreamResponse, streams: OpenStreams
    ) -> None:
        self._sock = environ["gunicorn.socket"]
        self._answer = answer
        self._streams = streams
        self._chunked = environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
        self._closing = not self._chunked or "close" in environ.get("HTTP_CONNECTION", "").lower()
        self._head_sent = False
        self._own_head: AnswerHead | None = None
        self._whole = False
        self._gone = False
        self._watch: ClientWatch | None = None
        #: After :meth:`run`: whether the connection may carry another request.
        self.kept = True

    def run(self) -> Response | int:
        """Write everything; the status that was sent, or a plain answer for the caller to send.

        The connection is hung up when it cannot be kept.
        """
        source = self._answer.source
        outcome = Outcome.ERROR
        plain: Response | None = None
        self._streams.add(source)
        self._streams.watches.add(self)
        try:
            self._sock.settimeout(self._answer.seconds)
            outcome, plain = self._forward()
        except OSError:
            outcome, plain, self._gone = Outcome.CLIENT_LEFT, None, True
        finally:
            self._streams.watches.discard(self)
            self._streams.silences.discard(self)
            if self._watch is not None:
                self._watch.stop()
                self._watch = None  # it knows this stream: left alone, both wait for a collection
            self._streams.discard(source)
            source.close()
            self._answer.finished(outcome)
            self._let_go(plain)
        return plain or (self._own_head.status if self._own_head is not None else 200)

    def _forward(self) -> tuple[Outcome, Response | None]:
        source, events = self._answer.source, self._answer.events
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                bodies = source.take()
            except CallFailed as error:
                return self._fail(pieces, error)
            if not bodies:
                break
            size += sum(map(len, bodies))
            if size > _SLICE:
                self._send_sliced(pieces, bodies)
                pieces, size = [], 0
                continue
            pieces += events(bodies)
            # What is there already goes out together: a write for each chunk is a fifth of the
            # speed. What is not there yet is not waited for.
            if size >= _GATHER or not source.ready:
                self._send(pieces)
                pieces, size = [], 0
        if self._gone:
            return Outcome.CLIENT_LEFT, None
        self._send(pieces, last=True)
        return Outcome.SUCCESS, None

    def _send_sliced(self, pieces: list[bytes], bodies: list[bytes]) -> None:
        """Send what a slow client let pile up, and let others run in between."""
        start = size = 0
        for end, body in enumerate(bodies, 1):
            size += len(body)
            if size >= _SLICE or end == len(bodies):
                self._send([*pieces, *self._answer.events(bodies[start:end])])
                pieces, start, size = [], end, 0
                sleep(GIVE_WAY)

    def _fail(self, pieces: list[bytes], error: CallFailed) -> tuple[Outcome, Response | None]:
        if self._gone:
            return Outcome.CLIENT_LEFT, None
        outcome = outcome_of(error)
        if not self._head_sent and not pieces:
            plain = self._answer.before_head(error)
            if plain is not None:
                return outcome, plain
        if self._answer.error_event is None:
            self._send(pieces)
        else:
            # With what came before it, in order: an error must not overtake chunks.
            self._send([*pieces, self._answer.error_event(error)], last=True)
        return outcome, None

    def _send(self, pieces: list[bytes], *, last: bool = False) -> None:
        if self._answer.head is not None:
            pieces = self._under_own_head(self._answer.head, pieces)
        parts = chunked(pieces) if self._chunked and pieces else pieces
        if last and self._chunked:
            parts = [*parts, LAST_CHUNK]
        if not self._head_sent:
            self._head_sent = True
            parts = [self._head(), *parts]
        send_all(self._sock, parts)
        self._whole = last

    def _under_own_head(self, make: Callable[[], AnswerHead], pieces: list[bytes]) -> list[bytes]:
        """The pieces that may follow a head of the answer's own."""
        own = self._own_head
        if own is None:
            own = self._own_head = make()
            # A length and chunks exclude each other (RFC 9112 section 6.2); a proxy that sees both
            # refuses the answer.
            self._chunked = self._chunked and own.length is None and not own.bodiless
        # An empty chunk is the end of a chunked body.
        return [] if own.bodiless else [piece for piece in pieces if piece]

    def _head(self) -> bytes:
        self._closing = self._closing or self._streams.draining
        own = self._own_head
        if own is None:
            own = AnswerHead(200, (("Content-Type", self._answer.content_type),))
        status, headers = own.status, headers_of(own)
        chunks = (CHUNKED,) if self._chunked else ()
        return head(status, (*headers, *chunks, _CLOSE) if self._closing else (*headers, *chunks))

    def watch(self) -> None:
        """The stream is not young any more: notice when its client leaves or falls silent."""
        self._watch = ClientWatch(self._sock, self.left)
        self._streams.silences.add(self)

    @property
    def socket(self) -> Any:
        """The client's connection."""
        return self._sock

    def left(self) -> None:
        """In the event loop: the client is gone. Ends the call and wakes a write that waits."""
        self._gone = True
        self._answer.source.close()
        hang_up(self._sock)

    def _let_go(self, plain: Response | None) -> None:
        """Give the connection back for its next request, or end it where it cannot be kept.

        A plain answer is still to be sent on it, by whoever called.
        """
        # Part of an answer is out. Anything that followed on this connection would be read as the
        # rest of it.
        cut = self._head_sent and not self._whole
        over = cut or self._closing or self._streams.draining
        if self._gone or (over and plain is None):
            self.kept = False
            hang_up(self._sock)
        else:
            self._sock.settimeout(None)


def headers_of(own: AnswerHead) -> tuple[tuple[str, str], ...]:
    """The headers of an answer's own head, its length among them."""
    if own.length is None:
        return own.headers
    return (*own.headers, ("Content-Length", str(own.length)))
