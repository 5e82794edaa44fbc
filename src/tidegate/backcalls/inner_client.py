"""HTTP to Dify's inner API: pooled connections, idle limits, nothing hidden (spec/plugin/05 §4).

The standard library's client over gevent's sockets; proxies of the environment are not its
business. A connection is used by one request at a time, is kept for a moment after a whole answer
and closed in every other case - also when the greenlet is killed, which aborts the request at
Dify's end. A request is sent once: nothing is retried.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final
from urllib.parse import urlsplit

import gevent

from tidegate.clock import GIVE_WAY
from tidegate.errors import BackCallFailed, IdleTimeout, StartRefused
from tidegate.runtime.keepalive import keep_alive
from tidegate.settings import Secret, Settings
from tidegate.telemetry.logs import get_log
from tidegate.wire.inner_api import FrameReader, InnerApiError

log = get_log("backcalls")

CONNECT_SECONDS: Final = 5.0
#: Servers close idle connections after two seconds and more; one that is sent on just then would
#: lose its request.
KEPT_SECONDS: Final = 1.0
MOST_KEPT: Final = 64
#: After which a machine that went without a word is noticed, however long the answer may take.
SILENT_SECONDS: Final = 120.0
_PIECE: Final = 1 << 16
#: How much of an error's page is read and told.
_SHOWN: Final = 2000
_READ_LIMIT: Final = "DIFY_BACKWARDS_INVOCATION_READ_TIMEOUT"
_WRITE_LIMIT: Final = "DIFY_BACKWARDS_INVOCATION_WRITE_TIMEOUT"


@final
class InnerClient:
    """One per process. Safe between greenlets; every request has a connection of its own."""

    def __init__(self, settings: Settings, *, patience: float = 0.0) -> None:
        """StartRefused when DIFY_INNER_API_URL is missing or no http(s) address.

        ``patience``: seconds of silence after which a request is given up, also before the answer
        has begun; the setting's hold from then on. Without it who asks has a deadline, and stops
        asking then: an app that Dify runs to its end before it answers may take all of it.
        """
        url = urlsplit(settings.dify_inner_api_url)
        try:
            port = url.port
        except ValueError:
            port = -1
        if url.scheme not in ("http", "https") or not url.hostname or port == -1:
            raise StartRefused(
                "DIFY_INNER_API_URL must be the http:// or https:// address of Dify's inner API "
                f"(TIDEGATE_BACKCALLS=dify), not {settings.dify_inner_api_url!r}"
            )
        if not settings.dify_inner_api_key.reveal().isprintable():
            raise StartRefused("DIFY_INNER_API_KEY holds characters that no header can carry")
        self._host, self._port = url.hostname, port
        self._base = f"{url.path.rstrip('/')}/inner/api/"
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._key: Secret = settings.dify_inner_api_key
        given = settings.dify_backwards_invocation_read_timeout / 1000
        self._patience = patience
        self._idle = min(given or patience, patience or given)
        self._idle_owner = _READ_LIMIT if self._idle == given else "patience"
        self._write = settings.dify_backwards_invocation_write_timeout / 1000
        self._limit = settings.response_max_buffer_size
        self._kept: list[tuple[float, http.client.HTTPConnection]] = []
        self._reaper: gevent.Greenlet | None = None

    def close(self) -> None:
        """Close the connections that are kept."""
        kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()
        if self._reaper is not None:
            self._reaper.kill()

    @contextmanager
    def post(self, path: str, body: bytes, *, trace: str) -> Iterator[InnerAnswer]:
        """Send ``body`` to ``path`` below ``inner/api/``; the answer's head is there.

        BackCallFailed when Dify cannot be reached or refuses (its status and text are in the
        message), IdleTimeout when it is silent. Errors while the answer is read in the block are
        those too.
        """
        connection = self._connection()
        response: http.client.HTTPResponse | None = None
        whole = False
        try:
            with self._named_errors():
                response = self._send(connection, path, body, trace)
                _refuse_other_statuses(response)
            yield InnerAnswer(self, response)
            whole = response.isclosed() and not response.will_close
        finally:
            if whole and len(self._kept) < MOST_KEPT:
                self._keep(connection)
            else:
                connection.close()
                if response is not None:
                    # the library hands the socket over to an answer that closes its connection
                    response.close()

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """What came of the answer's body; empty at its end."""
        with self._named_errors():
            # read1: what is there. `read` would wait until a piece is full, and hold up a stream.
            piece = response.read1(_PIECE)
            if not piece and response.length:
                raise http.client.IncompleteRead(b"", response.length)
        if not piece:
            response.close()  # the connection is free; read1 leaves that to us
        elif len(piece) == _PIECE:
            gevent.sleep(GIVE_WAY)  # a socket that is never empty lets nobody else run
        return piece

    @property
    def limit(self) -> int:
        """Largest frame, and largest answer that is no stream."""
        return self._limit

    def _send(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, trace: str
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            _connect(connection)
        # The two limits are of silence, set for each half: a long answer may take what it takes.
        connection.sock.settimeout(self._write or None)
        try:
            connection.putrequest("POST", self._base + path, skip_accept_encoding=True)
            connection.putheader("X-Inner-Api-Key", self._key.reveal())
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            if trace:
                connection.putheader("traceparent", trace)
            connection.endheaders()
            for start in range(0, len(body), _PIECE):  # each with the limit of its own
                connection.send(body[start : start + _PIECE])
        except (BrokenPipeError, ConnectionResetError) as error:
            # refused before all was sent: the answer may say why
            log.debug("Dify closed a request early", path=path, error=str(error))
        except TimeoutError:
            raise BackCallFailed(
                f"Dify does not take the request within {self._write:g} s ({_WRITE_LIMIT})"
            ) from None
        sock = connection.sock  # an answer that closes its connection takes it over
        sock.settimeout(self._patience or None)
        response = connection.getresponse()
        sock.settimeout(self._idle or None)
        return response

    def _connection(self) -> http.client.HTTPConnection:
        # The youngest first: the others may grow old and be closed.
        while self._kept:
            since, connection = self._kept.pop()
            if time.monotonic() - since < KEPT_SECONDS and _is_quiet(connection.sock):
                return connection
            connection.close()
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_SECONDS, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        self._kept.append((time.monotonic(), connection))
        if self._reaper is None or self._reaper.dead:
            self._reaper = gevent.spawn_later(KEPT_SECONDS, self._reap)

    def _reap(self) -> None:
        """Body of the greenlet that closes what was kept too long, while anything is kept."""
        while self._kept:
            oldest, connection = self._kept[0]
            left = oldest + KEPT_SECONDS - time.monotonic()
            if left > 0:
                gevent.sleep(left)
            else:
                del self._kept[0]
                connection.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            if error.errno:  # the system's own: nobody is there any more
                raise BackCallFailed(f"{self._where}: {error}") from error
            raise IdleTimeout(
                f"nothing came from Dify for {self._idle:g} s ({self._idle_owner})",
                seconds=self._idle,
                owner=self._idle_owner,
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BackCallFailed(f"{self._where}: {error or type(error).__name__}") from error

    @property
    def _where(self) -> str:
        shown = f"[{self._host}]" if ":" in self._host else self._host
        return f"Dify's inner API at {shown}{f':{self._port}' if self._port else ''}"


@final
class InnerAnswer:
    """An answer whose head was good. Read once, in the block of :meth:`InnerClient.post`."""

    def __init__(self, client: InnerClient, response: http.client.HTTPResponse) -> None:
        self._client = client
        self._response = response

    def frames(self) -> Iterator[bytes]:
        """The JSON of each frame as it comes. InnerApiError when the stream is none of frames."""
        reader = FrameReader(self._client.limit)
        while piece := self._client.read(self._response):
            yield from reader.feed(piece)
        reader.finish()

    def whole(self) -> bytes:
        """The whole body. InnerApiError when it is longer than RESPONSE_MAX_BUFFER_SIZE."""
        pieces = []
        left = self._client.limit
        while piece := self._client.read(self._response):
            left -= len(piece)
            if left < 0:
                raise InnerApiError(f"the answer is longer than {self._client.limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


def _connect(connection: http.client.HTTPConnection) -> None:
    try:
        connection.connect()
    except TimeoutError:
        # Named apart: outside, a time-out is a silence of Dify and has another setting.
        raise ConnectionError(f"no connection within {CONNECT_SECONDS:g} s") from None
    keep_alive(connection.sock, SILENT_SECONDS)


def _refuse_other_statuses(response: http.client.HTTPResponse) -> None:
    if response.status != http.HTTPStatus.OK:
        text = response.read(_SHOWN).decode("utf-8", "replace").strip()
        raise BackCallFailed(
            f"request failed with status code: {response.status} and respond with: {text}",
            status=response.status,
        )


def _is_quiet(sock: socket.socket | None) -> bool:
    """Whether the other end neither closed it nor sent what nobody asked for."""
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLERR | select.POLLHUP)
    return not poll.poll(0)
