"""One request on its way through the application."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, final

from tidegate.api.body import ServedBody
from tidegate.api.transmit import status_line
from tidegate.doors.routes import HEADERS_KEY, BodyRule, Request, Route

type StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@final
class Record:
    """What is needed to answer one request and to count it. Made by ``application``.

    ``count`` is called once, with the status that was sent. ``start_response`` is None where the
    answer can only go to the socket. ``kept``: the connection may carry another request.
    """

    __slots__ = (
        "_count", "_params", "began", "environ", "kept", "method", "path", "route",
        "start_response",
    )  # fmt: skip

    def __init__(
        self,
        count: Callable[[Record, int], None],
        environ: dict[str, Any],
        path: str,
        found: tuple[Route, dict[str, str]] | None,
        start_response: StartResponse | None,
    ) -> None:
        self._count = count
        self.began = monotonic()
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path = path
        self.route: Route | None = None
        self._params: dict[str, str] = {}
        if found is not None:
            self.route, self._params = found
        self.start_response = start_response
        self.kept = True

    def request(self, body: ServedBody) -> Request:
        """What its handler gets."""
        if self.route is not None and self.route.body is BodyRule.RAW:
            headers = _headers_as_sent(self.start_response)
            if headers is not None:
                self.environ[HEADERS_KEY] = headers
        return Request(self.environ, self.method, self.path, self._params, body)

    @property
    def chunks(self) -> bool:
        """Whether the client understands a body in chunks."""
        return bool(self.environ.get("SERVER_PROTOCOL") != "HTTP/1.0")

    def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Status and headers, by way of WSGI."""
        if self.start_response is not None:
            self.start_response(status_line(status), headers)

    def done(self, status: int) -> None:
        """The answer is sent, as far as this room can know."""
        self._count(self, status)


def _headers_as_sent(start_response: StartResponse | None) -> tuple[tuple[str, str], ...] | None:
    """The headers that gunicorn parsed; None with another server.

    ``environ`` has repeated ones joined already. Gunicorn's ``start_response`` is a method of the
    response that it prepares, and that knows its request.
    """
    # No interface of gunicorn gives them; a webhook must be passed on with Set-Cookie and the like
    # unjoined.
    request = getattr(getattr(start_response, "__self__", None), "req", None)
    headers = getattr(request, "headers", None)
    return None if headers is None else tuple(headers)
