"""An application of a few routes on a real gunicorn worker, and a client that sees every byte."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gevent.event import Event

from tidegate.api import following
from tidegate.api.application import Application, Load
from tidegate.api.streaming import OpenStreams
from tidegate.doors.dify.opening import before_head, error_event
from tidegate.doors.route_table import RouteTable
from tidegate.doors.routes import (
    Auth,
    BodyRule,
    Kind,
    Outcome,
    Request,
    Response,
    Route,
    StreamResponse,
)
from tidegate.runtime.drain import Drain
from tidegate.settings import Settings
from tidegate.testing.api_server import served
from tidegate.wire import sse


class Client:
    """One raw connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.buffer = b""

    def send(self, text: bytes) -> None:
        self.sock.sendall(text)

    def until(self, marker: bytes) -> bytes:
        """Everything up to and with ``marker``."""
        while marker not in self.buffer:
            data = self.sock.recv(65536)
            assert data, f"closed before {marker!r}: {self.buffer!r}"
            self.buffer += data
        end = self.buffer.index(marker) + len(marker)
        found, self.buffer = self.buffer[:end], self.buffer[end:]
        return found

    def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            while data := self.sock.recv(65536):
                self.buffer += data
        except ConnectionResetError:
            pass
        found, self.buffer = self.buffer, b""
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """A whole answer: by its length, or its chunks joined."""
        status, headers = self.head()
        if "content-length" in headers:
            length = int(headers["content-length"])
            while len(self.buffer) < length:
                self.buffer += self.sock.recv(65536)
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            return status, headers, body
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            while len(self.buffer) < size + 2:
                self.buffer += self.sock.recv(65536)
            body += self.buffer[:size]
            assert self.buffer[size : size + 2] == b"\r\n"
            self.buffer = self.buffer[size + 2 :]
        assert self.until(b"\r\n") == b"\r\n"
        return status, headers, body

    def close(self) -> None:
        self.sock.close()


class Harness:
    """The application under test and its parts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.drain = Drain()
        self.streams = OpenStreams(self.drain)
        self.load = Load()
        self.source: Any = None
        self.outcomes: list[Outcome] = []
        self.finished = Event()
        self.bodies: list[bytes] = []
        self.address: tuple[str, int] = ("", 0)
        self.application = Application(
            RouteTable(self._routes()), settings, self.streams, self.load
        )

    def _routes(self) -> list[Route]:
        return [
            Route("GET", "/plain", lambda request: Response(200, b"{}"), ""),
            Route("GET", "/open", lambda request: Response(200, b"{}"), "", Auth.NONE),
            Route("GET", "/broken", self._broken, ""),
            Route("GET", "/folder/", lambda request: Response(200, b"{}"), ""),
            Route("POST", "/body", self._body, "", body=BodyRule.JSON),
            Route("POST", "/pieces", self._pieces, "", body=BodyRule.MULTIPART),
            Route("POST", "/stream", self._stream, "", kind=Kind.STREAM),
        ]

    def _broken(self, request: Request) -> Response:
        raise RuntimeError("a secret that must not leave")

    def _body(self, request: Request) -> Response:
        self.bodies.append(request.body.read())
        return Response(200, b"{}")

    def _pieces(self, request: Request) -> Response:
        self.bodies.append(b"".join(request.body.pieces()))
        return Response(200, b"{}")

    def _stream(self, request: Request) -> StreamResponse:
        request.body.read()
        return StreamResponse(
            source=self.source,
            events=sse.events,
            error_event=error_event,
            before_head=before_head,
            finished=self._finish,
            seconds=30,
        )

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.finished.set()


HEAD = b"Host: x\r\nX-Api-Key: secret\r\n"


@pytest.fixture
def make_harness(tmp_path) -> Iterator[Callable[..., Harness]]:
    with ExitStack() as stack:

        def make(**settings: str) -> Harness:
            environ = {"TIDEGATE_HOME": str(tmp_path), "SERVER_KEY": "secret", **settings}
            harness = Harness(Settings.load(environ))
            harness.address = stack.enter_context(served(harness.application))
            return harness

        yield make


@pytest.fixture
def harness(make_harness) -> Harness:
    return make_harness()


@pytest.fixture
def connect(harness) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def make(address: tuple[str, int] | None = None) -> Client:
        client = Client(address or harness.address)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def request(method: str, path: str, body: bytes = b"", *, head: bytes = HEAD) -> bytes:
    """A request with its body's length."""
    length = b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), path.encode(), head, length, body)


def looks_at_following(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request that follows a stream, whether it is taken here or left to gunicorn."""
    seen: list[bool] = []
    original = following.FollowingRequests._plain

    def plain(self: Any, data: bytes) -> Any:
        found = original(self, data)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(following.FollowingRequests, "_plain", plain)
    return seen
