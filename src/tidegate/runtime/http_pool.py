"""HTTP that this process asks of others: Dify's inner API, functions and their connector.

The standard library's client over gevent's sockets; proxies of the environment are not its
business. Every request has a connection to itself. A connection is kept for a moment after a
whole answer and closed in every other case, also when the greenlet is killed: that aborts the
request at the other end. Only a connection that could not be made is tried again by itself: once
a request may have arrived it is never sent twice.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

import gevent

from tidegate.clock import doubled
from tidegate.runtime.keepalive import keep_alive
from tidegate.telemetry.logs import get_log

log = get_log("http")

#: Servers close idle connections after two seconds and more; one that is sent on just then would
#: lose its request.
KEPT_SECONDS: Final = 1.0
MOST_KEPT: Final = 64
CONNECT_SECONDS: Final = 5.0
#: After which a machine that went without a word is noticed, however long the answer may take.
SILENT_SECONDS: Final = 120.0
#: Bytes of the longest piece: after one of that length there may be more at once.
FULL: Final = 1 << 16
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0


class CannotConnect(Exception):
    """Nobody answers at that address; the request was not sent. ``attempts`` were made."""

    def __init__(self, place: str, reason: str, attempts: int) -> None:
        super().__init__(f"cannot connect to {place}: {reason}")
        self.reason = reason
        self.attempts = attempts


class NotTaken(TimeoutError):
    """The other end did not take the request within the limit of silence."""


@final
@dataclass(frozen=True, slots=True)
class Silence:
    """Seconds after which it is a TimeoutError that nothing moves; 0 is never.

    While the request is ``sent``, until the answer's ``head`` is there, and within its ``body``:
    a long one may take what it takes.
    """

    sent: float = 0.0
    head: float = 0.0
    body: float = 0.0


_PATIENT: Final = Silence()


def wait_before(attempt: int) -> float:
    """Seconds to wait before the attempt of that number, the second being the first to wait."""
    return doubled(_FIRST_WAIT, max(0, attempt - 2), _LONGEST_WAIT)


@final
class HttpPool:
    """Safe between greenlets. How long a request may take in all is its caller's business."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[tuple[float, http.client.HTTPConnection]]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweeper: gevent.Greenlet | None = None

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        attempts: int = 1,
        silence: Silence = _PATIENT,
    ) -> Iterator[http.client.HTTPResponse]:
        """One request; its answer's head is there, its body is read in the block.

        CannotConnect after ``attempts``; NotTaken, and TimeoutError without a number, for what
        was ``silence``; OSError and HTTPException when it broke later.
        """
        target = urlsplit(url)
        connection = self._connected(target, attempts)
        response: http.client.HTTPResponse | None = None
        whole = False
        try:
            _send(connection, method, target, headers, body, silence.sent)
            response = _begun(connection, silence)
            yield response
            whole = response.isclosed() and not response.will_close
        finally:
            self._give_back(target, connection, whole=whole)
            if response is not None and not whole:
                # The library hands the socket over to an answer that closes its connection: the
                # request is aborted by closing both.
                response.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        if self._sweeper is not None:
            self._sweeper.kill()
        kept, self._kept = self._kept, {}
        for connections in kept.values():
            for _, connection in connections:
                connection.close()

    def _connected(self, target: SplitResult, attempts: int) -> http.client.HTTPConnection:
        kept = self._kept.get(_place(target), [])
        while kept:
            since, connection = kept.pop()
            if time.monotonic() - since < KEPT_SECONDS and _is_quiet(connection.sock):
                return connection
            connection.close()
        for attempt in range(1, attempts + 1):
            connection = self._new(target)
            try:
                connection.connect()
            except TimeoutError:
                connection.close()
                reason = f"no connection within {CONNECT_SECONDS:g} s"
            except OSError as error:
                connection.close()
                reason = str(error) or type(error).__name__
            except BaseException:  # killed, or its time is over: the half-made one goes as well
                connection.close()
                raise
            else:
                keep_alive(connection.sock, SILENT_SECONDS)
                return connection
            if attempt < attempts:  # the last one is told by its error
                log.info("cannot connect", place=shown(target), attempt=attempt, error=reason)
                gevent.sleep(wait_before(attempt + 1))
        raise CannotConnect(shown(target), reason, attempts)

    def _new(self, target: SplitResult) -> http.client.HTTPConnection:
        host, port, limit = target.hostname or "", target.port, CONNECT_SECONDS
        if target.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=limit)
        # Once: loading the certificates costs 20 ms of CPU.
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=limit, context=self._tls)

    def _give_back(
        self, target: SplitResult, connection: http.client.HTTPConnection, *, whole: bool
    ) -> None:
        kept = self._kept.get(_place(target), [])
        if not whole or len(kept) >= MOST_KEPT:
            connection.close()
            return
        # At the end: the oldest is in front, where the sweeper looks.
        kept.append((time.monotonic(), connection))
        self._kept[_place(target)] = kept
        if self._sweeper is None or self._sweeper.dead:
            self._sweeper = gevent.spawn_later(KEPT_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what was not used again in time. Body of a greenlet that ends with the last."""
        # As long as there is anything, then no greenlet at all.
        while self._kept:
            oldest = time.monotonic() - KEPT_SECONDS
            for place, kept in list(self._kept.items()):
                while kept and kept[0][0] <= oldest:
                    kept.pop(0)[1].close()
                if not kept:
                    del self._kept[place]
            gevent.sleep(KEPT_SECONDS)


def read_piece(response: http.client.HTTPResponse) -> bytes:
    """What came of the body, :data:`FULL` bytes at most; empty at its end.

    IncompleteRead when it was cut.
    """
    # read1: what is there. `read` would wait until a piece is full, and hold up a stream.
    piece = response.read1(FULL)
    if not piece:
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        response.close()  # the connection is free; read1 leaves that to us
    return piece


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
    seconds: float,
) -> None:
    connection.sock.settimeout(seconds or None)
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body or method != "GET":
        connection.putheader("Content-Length", str(len(body)))
    # In pieces: a send of everything would not let anybody else run while the kernel takes it.
    # Refused before all was sent: the answer may say why.
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders()
            for start in range(0, len(body), FULL):
                connection.send(body[start : start + FULL])
    except TimeoutError as error:
        raise NotTaken(f"the request is not taken within {seconds:g} s") from error


def _begun(connection: http.client.HTTPConnection, silence: Silence) -> http.client.HTTPResponse:
    """The answer, of which the head has come."""
    sock = connection.sock  # an answer that closes its connection takes it over
    sock.settimeout(silence.head or None)
    response = connection.getresponse()
    sock.settimeout(silence.body or None)
    return response


def _place(target: SplitResult) -> tuple[str, str]:
    return target.scheme, target.netloc


def shown(target: SplitResult) -> str:
    """Host and port for a message, without the user that an address may name."""
    host = target.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{target.port}" if target.port else host


def _is_quiet(sock: socket.socket | None) -> bool:
    """Whether the other end neither closed it nor sent what nobody asked for."""
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLERR | select.POLLHUP)
    return not poll.poll(0)
