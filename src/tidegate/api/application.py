"""The WSGI application: find the route, ask for the key, answer, count, log.

    find ─► authenticate ─► drain? ─► handler ─► Response | StreamResponse | Takeover
                                        │ TidegateError ─► its envelope
                                        └ anything else ─► 500 and a log line, never the text

Answers that end the connection, and streams, are written to the socket that gunicorn hands over;
gunicorn then writes no access line of its own, so this room writes one for every request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from time import monotonic
from typing import Any, Final, cast, final
from urllib.parse import quote

from gunicorn.workers.base_async import ALREADY_HANDLED

from tidegate.api.body import RequestBody, ServedBody, WholeBody
from tidegate.api.following import FollowingRequests, may_follow
from tidegate.api.iterating import iterate
from tidegate.api.keys import Keys
from tidegate.api.record import Record, StartResponse
from tidegate.api.streaming import OpenStreams, SocketStream, headers_of
from tidegate.api.transmit import answer_on, hang_up
from tidegate.doors.envelope import NOT_FOUND, failure
from tidegate.doors.route_table import RouteTable
from tidegate.doors.routes import (
    Answer,
    BodyLimit,
    BodyRule,
    Kind,
    Response,
    Route,
    StreamResponse,
    Takeover,
)
from tidegate.errors import InternalFailure, Stopping, TidegateError, TooManyRequests
from tidegate.runtime.limits import bound_by, most_dispatched
from tidegate.settings import Settings
from tidegate.telemetry import metrics
from tidegate.telemetry.access import AccessLog
from tidegate.telemetry.logs import get_log

log = get_log("api")

#: Endpoint label of requests that no route serves.
UNKNOWN: Final = "unknown"
HEALTH_PATH: Final = "/health/check"
LIVE_PATH: Final = "/health/live"
_RETRY_AFTER: Final = 1


@final
class Load:
    """Requests that are being answered; what /health/check shows."""

    __slots__ = ("dispatching", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.dispatching = 0


@final
class Application:
    """The callable that gunicorn serves. Composed by :func:`tidegate.api.build_application`."""

    def __init__(
        self, table: RouteTable, settings: Settings, streams: OpenStreams, load: Load
    ) -> None:
        self.table = table
        self._settings = settings
        self._streams = streams
        self._load = load
        self._keys = Keys(settings)
        self._limit = BodyLimit(settings.tidegate_max_body, "TIDEGATE_MAX_BODY")
        self._most_dispatched = most_dispatched(settings)
        self._bound_by = bound_by(settings)
        self._access = AccessLog(settings)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, and those dispatch requests that follow it on its connection."""
        record = self._record(environ, start_response)
        answer = self._exchange(record, self._body(record))
        streamed = record.route is not None and record.route.kind is Kind.STREAM
        kept = record.kept
        if streamed and kept and answer is ALREADY_HANDLED and may_follow(environ):
            kept = self._follow(environ)
        if not kept:
            # The connection was ended, but bytes may still lie in it: a request that came with
            # the last one. It must not run, since nobody can hear its answer. This is how
            # gunicorn is told to leave a connection.
            raise StopIteration
        return answer

    def _follow(self, environ: dict[str, Any]) -> bool:
        """Serve what follows; whether the connection is gunicorn's again."""
        following = FollowingRequests(environ, self.table, self._settings.tidegate_max_body)
        sock = environ["gunicorn.socket"]
        kept = True
        while kept and not self._streams.draining:
            with self._streams.idle(sock):
                found = following.wait()
            if found is None:
                break
            record = self._record(found[0], None)
            self._exchange(record, WholeBody(found[1]))
            kept = record.kept
        return kept

    def _body(self, record: Record) -> RequestBody:
        own = record.route.limit if record.route is not None else None
        return RequestBody(
            record.environ,
            limit=own or self._limit,
            seconds=self._settings.tidegate_body_timeout,
        )

    def _record(self, environ: dict[str, Any], start_response: StartResponse | None) -> Record:
        path = environ["PATH_INFO"]
        if not path.isascii():
            path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        found = self.table.find(environ["REQUEST_METHOD"], path)
        return Record(self.count, environ, path, found, start_response)

    def _exchange(self, record: Record, body: ServedBody) -> Iterable[bytes]:
        """Answer one request; what gunicorn gets."""
        route = record.route
        if route is None:
            return self._plain(self._not_found(record), record)
        streams = route.kind is Kind.STREAM
        # Plain counters, no lock: greenlets switch only where one waits, never between reading a
        # number and writing it.
        self._load.requests += 1
        self._load.dispatching += streams
        try:
            return self._deliver(self._answer(route, record, body), record)
        finally:
            self._load.requests -= 1
            self._load.dispatching -= streams

    # ------------------------------------------------------------------ answering

    def _answer(self, route: Route, record: Record, body: ServedBody) -> Answer:
        """What the handler says, or the envelope of what went wrong. The error boundary."""
        try:
            self._admit(route, record.environ)
            body.check()
            return route.handler(record.request(body))
        # Before TidegateError, which it is: its connection must end, or the client sends its next
        # try to the process that is going away.
        except Stopping as error:
            return replace(failure(error), close=True)
        except TidegateError as error:
            answer = failure(error)
        except Exception:
            # The text of a defect may hold anything, keys and request bodies included (T-S14): it
            # goes to the log, never into the answer.
            log.exception("request failed", method=record.method, path=record.path)
            answer = failure(_internal())
        if not body.broken:
            return answer
        # What was not read stands before the next request. Chunked, as all answers of such a
        # route are: callers of webhooks read them so.
        return replace(answer, close=True, chunked=route.body is BodyRule.RAW)

    def _admit(self, route: Route, environ: dict[str, Any]) -> None:
        # The key first: whoever has none must not learn how busy this process is, or that it
        # stops.
        self._keys.require(route.auth, environ)
        if self._streams.refusing and route.pattern != LIVE_PATH:
            metrics.REQUESTS_REFUSED.labels("stopping").inc()
            raise Stopping("the server is stopping: try again", retry_after=_RETRY_AFTER)
        # Streams only. Dify asks for lists and decrypts secrets while it waits for one of these
        # streams (R24): those requests must still find room when all of them are taken.
        if route.kind is Kind.STREAM and self._load.dispatching > self._most_dispatched:
            metrics.REQUESTS_REFUSED.labels("overload").inc()
            raise TooManyRequests(
                f"{self._most_dispatched} calls run already ({self._bound_by})",
                retry_after=_RETRY_AFTER,
            )

    def _not_found(self, record: Record) -> Response:
        """404, or the way to the path with one slash more or less where that is a route."""
        method, path = record.method, record.path
        other = path[:-1] if path.endswith("/") else path + "/"
        if self.table.find(method, other) is None:
            return NOT_FOUND
        query = record.environ.get("QUERY_STRING", "")
        target = quote(other) + ("?" + query if query else "")
        # 307 keeps method and body; after a 301 clients repeat a POST as a GET.
        return Response(301 if method == "GET" else 307, b"", headers=(("Location", target),))

    # ------------------------------------------------------------------ delivering

    def _deliver(self, answer: Answer, record: Record) -> Iterable[bytes]:
        if isinstance(answer, Response):
            if "HTTP_UPGRADE" in record.environ or self._streams.draining:
                # a proxy may take the connection of an upgrade for a tunnel: nothing follows on it
                answer = replace(answer, close=True)
            return self._plain(answer, record)
        sock = own_socket(record.environ)
        if isinstance(answer, Takeover):
            return self._take_over(answer, sock, record)
        if sock is None:
            return self._iterated(answer, record)
        return self._stream(answer, sock, record)

    def _stream(self, answer: StreamResponse, sock: Any, record: Record) -> Iterable[bytes]:
        stream = SocketStream(record.environ, answer, self._streams)
        try:
            sent = stream.run()
        except Exception:
            # The head may be out already. Cutting the connection is then the only way left to say
            # that the answer is not whole.
            log.exception("stream failed", method=record.method, path=record.path)
            hang_up(sock)
            sent, stream.kept = 500, False
        if isinstance(sent, Response):
            return self._plain(sent, record)
        record.kept = stream.kept
        record.done(sent)
        return handled()

    def _plain(self, answer: Response, record: Record) -> Iterable[bytes]:
        if record.start_response is None or answer.close:
            sock = own_socket(record.environ)
            if sock is not None:
                answer_on(sock, answer, chunks=record.chunks, bodiless=record.method == "HEAD")
                record.kept = not answer.close
                record.done(answer.status)
                return handled()
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
        ]
        record.begin(answer.status, headers)
        record.done(answer.status)
        return () if record.method == "HEAD" else (answer.body,)

    def _take_over(self, answer: Takeover, sock: Any, record: Record) -> Iterable[bytes]:
        if sock is None:
            refusal = InternalFailure("this connection cannot be upgraded: plain HTTP/1.1 only")
            return self._plain(failure(refusal), record)
        try:
            answer.serve(sock)
        except Exception:
            log.exception("connection failed", method=record.method, path=record.path)
        finally:
            hang_up(sock)
            record.kept = False
            record.done(101)
        return handled()

    def _iterated(self, answer: StreamResponse, record: Record) -> Iterable[bytes]:
        def begin(plain: Response | None) -> None:
            status, headers = 200, [("Content-Type", answer.content_type)]
            if plain is not None:
                status, headers = plain.status, [("Content-Type", plain.content_type)]
            elif answer.head is not None:
                own = answer.head()
                status, headers = own.status, list(headers_of(own))
            record.begin(status, headers)
            record.done(status)

        return iterate(answer, self._streams, begin)

    # ------------------------------------------------------------------ afterwards

    def count(self, record: Record, status: int) -> None:
        """Metrics and the access line of one request. Called once, when its answer is sent."""
        seconds = monotonic() - record.began
        endpoint = record.route.pattern if record.route is not None else UNKNOWN
        method = record.method if record.route is not None else UNKNOWN
        # By pattern, never by path: ids and hooks in a label would make a new time series for
        # each.
        metrics.HTTP_REQUESTS.labels(method, endpoint, str(status)).inc()
        metrics.HTTP_SECONDS.labels(method, endpoint).observe(seconds)
        if record.path != HEALTH_PATH or self._settings.health_api_log_enabled:
            client = record.environ.get("REMOTE_ADDR", "")
            self._access.write(record.method, record.path, status, seconds, client)


def own_socket(environ: dict[str, Any]) -> Any:
    """The client's socket when this room may speak on it: HTTP/1 from gunicorn, without TLS."""
    sock = environ.get("gunicorn.socket")
    # A TLS socket refuses MSG_PEEK and sendmsg, and a stream of HTTP/2 shares its socket with
    # others.
    if sock is None or environ.get("HTTP_VERSION") == "2" or hasattr(sock, "cipher"):
        return None
    return sock


def handled() -> Iterable[bytes]:
    """Tells gunicorn that the answer was written already."""
    return cast("Iterable[bytes]", ALREADY_HANDLED)


def _internal() -> InternalFailure:
    return InternalFailure("internal error; the server's log says more")
