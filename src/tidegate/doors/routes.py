"""Routes: a request, and what may answer it.

A door is a list of :class:`Route` rows; ``api`` joins the lists of all doors into one
:class:`tidegate.doors.route_table.RouteTable` and serves it. Adding a route is adding a row.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, final
from urllib.parse import parse_qs

import msgspec

from tidegate.errors import CallFailed

JSON_TYPE: Final = "application/json; charset=utf-8"
#: Where ``api`` puts the headers of a request whose row passes bytes on, as they were sent.
HEADERS_KEY: Final = "tidegate.headers"


class Body(Protocol):
    """The body of a request, under the limits of ``api``. Read by at most one of the two ways."""

    def read(self) -> bytes:
        """All of it. BodyTooLarge and BodyTooSlow as they say."""

    def pieces(self) -> Iterator[bytes]:
        """The same in pieces as they arrive, for uploads that need not be in memory."""


@final
class Request:
    """One HTTP request as a handler sees it. Made by ``api``, lives as long as the request."""

    __slots__ = ("_query", "body", "environ", "method", "params", "path")

    def __init__(
        self, environ: dict[str, Any], method: str, path: str, params: dict[str, str], body: Body
    ) -> None:
        self.environ = environ
        self.method = method
        self.path = path
        self.params = params
        self.body = body
        self._query: dict[str, list[str]] | None = None

    def header(self, name: str) -> str:
        """A header's value, or an empty text. ``name`` in any case, with dashes."""
        key = name.upper().replace("-", "_")
        if key in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            return str(self.environ.get(key, ""))
        return str(self.environ.get("HTTP_" + key, ""))

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """All headers with names in any case, repeated ones on their own where ``api`` had them.

        WSGI joins those by a comma, which is not the same for every header.
        """
        # Two X-Forwarded-For lines joined by a comma are another request, byte for byte
        # (spec/http/05).
        as_sent: tuple[tuple[str, str], ...] | None = self.environ.get(HEADERS_KEY)
        if as_sent is not None:
            return as_sent
        joined = [
            (key[5:].replace("_", "-"), value)
            for key, value in self.environ.items()
            if key.startswith("HTTP_")
        ]
        kind = self.header("content-type")
        return (*joined, ("Content-Type", kind)) if kind else tuple(joined)

    @property
    def query(self) -> dict[str, list[str]]:
        """The query string, every value of a repeated key."""
        if self._query is None:
            text = self.environ.get("QUERY_STRING", "")
            self._query = parse_qs(text, keep_blank_values=True) if text else {}
        return self._query


@final
@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. ``close`` ends the connection after it.

    ``chunked``: sent in one chunk instead of with a length, where the client speaks HTTP/1.1.
    Only together with ``close``.
    """

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    chunked: bool = False


class Outcome(enum.StrEnum):
    """How a streamed answer ended; the values of the metrics' ``status`` label."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CLIENT_LEFT = "client_disconnect"


class Source(Protocol):
    """Where the chunks of a streamed answer come from; ``calls.Stream`` is one."""

    @property
    def ready(self) -> bool:
        """Whether ``take`` would not wait."""

    def take(self) -> list[bytes]:
        """Waits; all that is ready (each one or more chunks joined by a newline); [] at the end.

        Raises the CallFailed that ended the call otherwise.
        """

    def abort(self, error: CallFailed) -> None:
        """End it with ``error``; the reader still gets what came before. From anywhere."""

    def close(self) -> None:
        """The reader is done or gone. Idempotent, callable from anywhere, never blocks."""


@final
@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Status and headers of a streamed answer whose first chunk decides on them.

    ``length`` is the body's, None when it is not known; ``bodiless`` answers have none at all.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None = None
    bodiless: bool = False


@final
@dataclass(slots=True)
class StreamResponse:
    """An answer that comes in chunks; ``api`` writes it to the client's socket.

    ``events`` turns the bodies that ``source`` gave into what goes over the wire, in pieces, and
    ``error_event`` does so for the error that ended it; without one the connection is cut, so
    that the client sees that something is missing. ``before_head`` may turn an error that came
    before the first chunk into a plain answer. ``finished`` is called exactly once.
    ``seconds`` bounds how long a client that does not read may hold the connection.
    ``head`` is asked when the first piece is to be sent; without it: 200 and ``content_type``.
    """

    source: Source
    events: Callable[[list[bytes]], list[bytes]]
    error_event: Callable[[CallFailed], bytes] | None
    before_head: Callable[[CallFailed], Response | None]
    finished: Callable[[Outcome], None]
    seconds: float
    content_type: str = "text/event-stream"
    head: Callable[[], AnswerHead] | None = None


@final
@dataclass(frozen=True, slots=True)
class Takeover:
    """The handler speaks on the client's socket itself; ``serve`` returns when it is done."""

    serve: Callable[[Any], None]


type Answer = Response | StreamResponse | Takeover
type Handler = Callable[[Request], Answer]


class Auth(enum.Enum):
    """Who may call a route."""

    KEY = "X-Api-Key"
    ADMIN = "X-Admin-Api-Key"
    NONE = "nobody asks"


class BodyRule(enum.Enum):
    """What a route does with the request's body."""

    NONE = "no body is expected; one that comes is ignored"
    JSON = "a JSON object, or nothing"
    MULTIPART = "multipart/form-data, read in pieces"
    RAW = "any bytes, passed on"


@final
@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The most bytes that a request's body may have, and who says so: the name of a setting."""

    size: int
    owner: str


class Kind(enum.Enum):
    """What a route answers with."""

    ENVELOPE = "JSON envelope"
    STREAM = "server-sent events"
    RAW = "raw bytes"
    SOCKET = "WebSocket"


@final
@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``docs`` is its line in docs/reference/routes.md.

    ``form`` is what it takes, ``header`` a header that it needs: for the OpenAPI document.
    ``limit`` of its body, where it is not TIDEGATE_MAX_BODY.
    """

    method: str
    pattern: str
    handler: Handler
    docs: str
    auth: Auth = Auth.KEY
    body: BodyRule = BodyRule.NONE
    kind: Kind = Kind.ENVELOPE
    form: type[msgspec.Struct] | None = None
    header: str = ""
    limit: BodyLimit | None = None
