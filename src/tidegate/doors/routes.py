"""Routes: a request, what may answer it, and the table that finds the row.

A door is a list of :class:`Route` rows; ``api`` joins the lists of all doors into one
:class:`RouteTable` and serves it. Adding a route is adding a row.

| pattern segment | matches |
|-----------------|---------|
| ``text``        | exactly that segment; wins over the others |
| ``{name}``      | one segment that is not empty |
| ``{name...}``   | the rest of the path, slashes included; only as the last segment |
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, final
from urllib.parse import parse_qs

import msgspec

from tidegate.errors import CallFailed

JSON_TYPE: Final = "application/json; charset=utf-8"
#: Where ``api`` puts the headers of a request whose row passes bytes on, as they were sent.
HEADERS_KEY: Final = "tidegate.headers"
#: Paths of streaming routes that a table remembers.
_KNOWN: Final = 4096


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


class _Node:
    __slots__ = ("parameter", "routes", "static", "tails")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, tuple[Route, list[str]]] = {}
        self.tails: dict[str, tuple[Route, list[str]]] = {}


@final
class RouteTable:
    """Finds the row for a method and a path. Built once; read by every request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        self._exact: dict[tuple[str, str], Route] = {}
        self._known: dict[tuple[str, str], tuple[Route, dict[str, str]]] = {}
        for route in self.routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        if "{" not in route.pattern:
            self._claim(self._exact, (route.method, route.pattern), route)
            return
        # A tree: else every pattern would be tried in turn for each request.
        node, names = self._root, list[str]()
        for segment in route.pattern[1:].split("/"):
            if segment.endswith("...}"):
                names.append(segment[1:-4])
                self._claim(node.tails, route.method, (route, names))
                return
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.static.setdefault(segment, _Node())
        self._claim(node.routes, route.method, (route, names))

    @staticmethod
    def _claim[K, V](table: dict[K, V], key: K, value: V) -> None:
        if key in table:
            raise ValueError(f"two routes for {key}")
        table[key] = value

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """(row, path parameters), or None: the path is unknown or the method is not served.

        The parameters may be shared with other requests of the same path: read them only.
        """
        known = self._known.get((method, path))
        if known is None:
            known = self._search(method, path)
            if known is not None and known[0].kind is Kind.STREAM:
                # The hot paths are few: a tenant's dispatch routes. Others may hold anything.
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[method, path] = known
        return known

    def _search(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        values: list[str] = []
        found = self._walk(self._root, path.split("/"), 1, method, values)
        if found is None:
            return None
        route, names = found
        return route, dict(zip(names, values, strict=True))

    def _walk(
        self, node: _Node, segments: list[str], index: int, method: str, values: list[str]
    ) -> tuple[Route, list[str]] | None:
        if index == len(segments):
            return node.routes.get(method)
        segment = segments[index]
        known = node.static.get(segment)
        if known is not None:
            # May find nothing although it fits so far (another method, a longer path): then the
            # parameter is tried.
            found = self._walk(known, segments, index + 1, method, values)
            if found is not None:
                return found
        if node.parameter is not None and segment:
            values.append(segment)
            found = self._walk(node.parameter, segments, index + 1, method, values)
            if found is not None:
                return found
            # That way led nowhere: its value must not stand among those of the next.
            values.pop()
        tail = node.tails.get(method)
        if tail is not None:
            values.append("/".join(segments[index:]))
        return tail
