"""HTTP to Dify's inner API: key, limits of silence, frames (spec/plugin/05 §4).

A request is sent once: nothing is retried. A killed greenlet aborts its request at Dify's end.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, final
from urllib.parse import urlsplit, urlunsplit

import gevent

from tidegate.clock import GIVE_WAY
from tidegate.errors import BackCallFailed, IdleTimeout, StartRefused
from tidegate.runtime.http_pool import (
    FULL,
    CannotConnect,
    HttpPool,
    NotTaken,
    Silence,
    read_piece,
    shown,
)
from tidegate.settings import Secret, Settings
from tidegate.wire.inner_api import FrameReader, InnerApiError

#: How much of an error's page is read and told.
_SHOWN: Final = 2000
_READ_LIMIT: Final = "DIFY_BACKWARDS_INVOCATION_READ_TIMEOUT"
_WRITE_LIMIT: Final = "DIFY_BACKWARDS_INVOCATION_WRITE_TIMEOUT"


@final
class InnerClient:
    """One per process. Safe between greenlets."""

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
        path = f"{url.path.rstrip('/')}/inner/api/"
        self._base = urlunsplit((url.scheme, url.netloc, path, "", ""))
        self._where = f"Dify's inner API at {shown(url)}"
        self._key: Secret = settings.dify_inner_api_key
        given = settings.dify_backwards_invocation_read_timeout / 1000
        # The shorter of the two; 0 is none.
        idle = min(given or patience, patience or given)
        write = settings.dify_backwards_invocation_write_timeout / 1000
        self._silence = Silence(sent=write, head=patience, body=idle)
        self._idle_owner = _READ_LIMIT if idle == given else "patience"
        self._limit = settings.response_max_buffer_size
        self._pool = HttpPool()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._pool.close()

    @contextmanager
    def post(self, path: str, body: bytes, *, trace: str) -> Iterator[InnerAnswer]:
        """Send ``body`` to ``path`` below ``inner/api/``; the answer's head is there.

        BackCallFailed when Dify cannot be reached or refuses (its status and text are in the
        message), IdleTimeout when it is silent. Errors while the answer is read in the block are
        those too.
        """
        headers = {"X-Inner-Api-Key": self._key.reveal(), "Content-Type": "application/json"}
        if trace:
            headers["traceparent"] = trace
        # Not around the block: its other errors are not Dify's.
        with ExitStack() as exchange:
            with self._named_errors():
                response = exchange.enter_context(
                    self._pool.exchange(
                        "POST",
                        self._base + path,
                        headers=headers,
                        body=body,
                        silence=self._silence,
                    )
                )
                _refuse_other_statuses(response)
            yield InnerAnswer(self, response)

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """What came of the answer's body; empty at its end."""
        with self._named_errors():
            piece = read_piece(response)
        if len(piece) == FULL:
            gevent.sleep(GIVE_WAY)  # a socket that is never empty lets nobody else run
        return piece

    @property
    def limit(self) -> int:
        """Largest frame, and largest answer that is no stream."""
        return self._limit

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except CannotConnect as error:
            raise BackCallFailed(f"{self._where}: {error.reason}") from error
        except NotTaken as error:
            raise BackCallFailed(f"{self._where}: {error} ({_WRITE_LIMIT})") from error
        except TimeoutError as error:
            if error.errno:  # the system's own: nobody is there any more
                raise BackCallFailed(f"{self._where}: {error}") from error
            raise IdleTimeout(
                f"nothing came from Dify for {self._silence.body:g} s ({self._idle_owner})",
                seconds=self._silence.body,
                owner=self._idle_owner,
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BackCallFailed(f"{self._where}: {error or type(error).__name__}") from error


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


def _refuse_other_statuses(response: http.client.HTTPResponse) -> None:
    if response.status != http.HTTPStatus.OK:
        text = response.read(_SHOWN).decode("utf-8", "replace").strip()
        raise BackCallFailed(
            f"request failed with status code: {response.status} and respond with: {text}",
            status=response.status,
        )
