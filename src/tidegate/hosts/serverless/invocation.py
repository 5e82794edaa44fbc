"""One call of a function: a request, and its answer as the lines of a session.

on cancel or deadline the greenlet is killed, which aborts the request
an answer that ends without the end of its session was cut: an error, however it began
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any, Final, final

import gevent

from tidegate.backcalls import Session
from tidegate.clock import GIVE_WAY
from tidegate.deadline import Deadline
from tidegate.errors import CallFailed, FunctionFailed, FunctionUnreachable, MessageTooLarge
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.serverless.functions import Known
from tidegate.hosts.session_table import session_of
from tidegate.link import ServerCall, flush, wait_writable
from tidegate.runtime.http_pool import CannotConnect, HttpPool, read_piece, wait_before
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log
from tidegate.wire.embeddings import SPLIT, Batch, merge, split, too_large
from tidegate.wire.heads import PluginHead
from tidegate.wire.pieces import whole
from tidegate.wire.serverless import (
    MOST_REASON,
    REPEATABLE,
    SESSION_HEADER,
    invoke_url,
    line_failure,
    response_failure,
    with_session,
)
from tidegate.wire.sessions import Sessions

log = get_log("hosts")

_BAD_GATEWAY: Final = http.HTTPStatus.BAD_GATEWAY
_LAST_BYTES: Final = 0.2


@final
class Invocation:
    """One call. Made by ``Serverless`` with its signed session; :meth:`run` is its greenlet."""

    def __init__(
        self,
        call: ServerCall,
        head: PluginHead,
        signed: str,
        settings: Settings,
        pool: HttpPool,
        plugin_log: PluginLog,
    ) -> None:
        self.call = call
        self.head = head
        self.signed = signed
        self.deadline = Deadline.after(head.seconds, head.owner)
        self._settings = settings
        self._pool = pool
        self._log = plugin_log

    @property
    def session(self) -> Session:
        """The session, as its back-calls see it."""
        return session_of(self.head, self.deadline)

    def run(self, find: Callable[[str], Known]) -> None:
        """The whole call; it has ended, typed, when this returns."""
        # From here on, with all that is waited for: a look at the rows, a connection, each batch.
        limit = gevent.Timeout(self.deadline.remaining())
        limit.start()
        try:
            self._serve(find(self.head.plugin))
        except gevent.Timeout as expired:
            # Somebody else's is a defect, and no deadline.
            if expired is not limit:
                raise
            self.call.fail(self.deadline.error().as_json())
        except CallFailed as error:
            self.call.fail(error.as_json())
        except Exception as error:
            log.exception("call of a function failed", plugin=self.head.plugin)
            self.call.fail(CallFailed(f"internal error: {error!r}").as_json())
        finally:
            limit.close()

    def _serve(self, known: Known) -> None:
        # In one piece: it has a length to announce, and at most the few MB that a function takes.
        line = with_session(whole(self.call.payload), self.head.session, self.signed)
        self.call.payload = b""
        limit, action = self._settings.max_serverless_request_bytes, self.head.action
        if len(line) <= limit:
            self._invoke(known.function.url, line, self.call)
        elif action not in SPLIT:
            raise too_large(action, len(line), limit)
        else:
            self._in_batches(known.function.url, split(action, line, limit))
        known.served += 1

    def _in_batches(self, function: str, batches: list[Batch]) -> None:
        """One batch after the other in the same session; their answers become one.

        That one is a chunk like any other, so all of them together may be as long as a line.
        """
        answers: list[list[bytes]] = []
        left = self._settings.line_limit
        for batch in batches:
            port = _Collected(left)
            self._invoke(function, batch.line, port)
            if port.error:
                self.call.fail(port.error)
                return
            answers.append([bytes(one) for one in port.buffer])
            left -= port.size
        self.call.send(merge(self.head.action, batches, answers))
        self.call.finish()

    # ------------------------------------------------------------------ one request

    def _invoke(self, function: str, line: bytes, port: Any) -> None:
        """One request; ``port`` has ended when this returns."""
        most = self._settings.max_serverless_retry_times if self.head.action in REPEATABLE else 1
        for attempt in range(1, most + 1):
            try:
                if self._once(function, line, port, last=attempt == most):
                    return
            # Nothing was sent, so the pool has tried as often as it may.
            except CannotConnect as error:
                raise _unreachable(error.attempts, str(error)) from None
            except (OSError, http.client.HTTPException) as error:
                text = f"failed to read response body: {error or type(error).__name__}"
                raise FunctionUnreachable(text, attempts=attempt) from None
            # Only a 502 comes here, and only for what has no effect: nothing else is sent twice.
            gevent.sleep(wait_before(attempt + 1))

    def _once(self, function: str, line: bytes, port: Any, *, last: bool) -> bool:
        """False when a gateway said 502 and the request may be sent again."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            SESSION_HEADER: self.signed,
        }
        if self.head.trace:
            headers["traceparent"] = self.head.trace
        with self._pool.exchange(
            "POST",
            invoke_url(function, self.head.action),
            headers=headers,
            body=line,
            attempts=max(1, self._settings.max_serverless_retry_times),
        ) as response:
            if response.status == _BAD_GATEWAY and self.head.action in REPEATABLE:
                if last:
                    most = self._settings.max_serverless_retry_times
                    told = f"attempt {most}/{most} failed with status code: 502"
                    raise _unreachable(most, told)
                return False
            self._read(response, port)
        return True

    def _read(self, response: http.client.HTTPResponse, port: Any) -> None:
        # Platforms and proxies spell them as they like.
        headers = {name.lower(): value for name, value in response.getheaders()}
        body = b"" if 200 <= response.status < 300 else response.read(MOST_REASON)
        failure = response_failure(response.status, response.reason, headers, body)
        if failure is not None:
            raise failure
        heard = _Heard(self._log, response.status)
        sessions = Sessions(self._settings.line_limit, heard)
        # The signed id: it is all that the function ever saw of the session.
        sessions.open(self.signed, port)
        spoke = False
        while sessions.ports and (piece := read_piece(response)):
            gevent.sleep(GIVE_WAY)  # a socket that is never empty lets nobody else run
            dirty = sessions.receive(piece)
            spoke = spoke or bool(dirty)
            # Not when the session has ended: what a platform says behind the end concerns nobody.
            if heard.failure is not None and sessions.ports:
                raise heard.failure
            if dirty and port is self.call:
                flush((self.call,))
                wait_writable((self.call,))
            elif port is not self.call and port.size > port.most:
                raise _answers_too_long(self._settings.line_limit)
        if sessions.ports:
            raise _cut(response.status, spoke=spoke)
        # A connection is used again only after a whole answer: 20 ms of TLS per call.
        _read_to_end(response)


@final
class _Collected:
    """A session's output kept for a while: the answer of one batch. A ``wire.ports.Port``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._counted = self._size = 0
        self.buffer: list[bytes] = []
        self.closed = False
        self.error = b""

    @property
    def size(self) -> int:
        """Bytes that came. Each chunk is looked at once: there may be very many."""
        new = self.buffer[self._counted :]
        self._counted += len(new)
        self._size += sum(len(memoryview(one)) for one in new)
        return self._size

    def conclude(self, error: bytes = b"") -> None:
        """The end of the batch."""
        self.closed = True
        self.error = error


@final
class _Heard:
    """What a function says apart from its answer. A ``wire.ports.Listener``."""

    def __init__(self, plugin_log: PluginLog, status: int) -> None:
        self._log = plugin_log
        self._status = status
        self.failure: CallFailed | None = None

    def heartbeat(self) -> None:
        """Functions have no heart."""

    def log(self, level: str, message: str) -> None:
        """A log line in the answer."""
        self._log.write(level.lower()[:16], message)

    def noise(self, text: bytes) -> None:
        """A line that is no event: the platform's error, or nothing that can be understood."""
        shown = text[:500].decode("utf-8", "replace")
        self.failure = line_failure(text, self._status) or FunctionUnreachable(
            f"encountered an error: {shown}", attempts=1
        )

    def dropped(self, lines: int) -> None:
        """The first ones have said it already."""

    def invoke(self, session_id: str, request: bytes) -> None:
        """Functions call back over HTTP, not within their answers."""
        self.failure = _NotSupported("serverless event is not supported by full duplex")


class _NotSupported(CallFailed):
    """A back-call inside the answer of a function."""

    error_type = "serverless_event_not_supported"


def _answers_too_long(limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"the answers to the batches of this request are longer than {limit} bytes together",
        limit=limit,
        setting="PLUGIN_RUNTIME_MAX_BUFFER_SIZE",
    )


def _unreachable(attempts: int, reason: str) -> FunctionUnreachable:
    return FunctionUnreachable(
        f"Error sending request to serverless: all {attempts} attempts failed, "
        f"last error: {reason}",
        attempts=attempts,
    )


def _cut(status: int, *, spoke: bool) -> FunctionFailed:
    what = "the response was cut before its end" if spoke else "no valid session response"
    return FunctionFailed(f"Plugin runtime request failed: {what}", status_code=status)


def _read_to_end(response: http.client.HTTPResponse) -> None:
    """The session has ended: read the last bytes, so that the connection can be used again."""
    # The caller has his answer: for the rest nobody waits long.
    with gevent.Timeout(_LAST_BYTES, False):
        try:
            while read_piece(response):
                gevent.sleep(GIVE_WAY)
        except (OSError, http.client.HTTPException) as error:
            log.debug("function's answer not read to its end", error=str(error))
