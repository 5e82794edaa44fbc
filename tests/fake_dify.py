"""A small Dify inner API for tests: real HTTP, answers that the test scripts, a record of calls.

    with fake_dify() as dify:
        dify.on("invoke/llm", stream(chunk, chunk))
        settings = Settings.load(dify.environ)

A handler is a function of the request: it returns a JSON object (the unary answer's ``data``), or
writes whatever bytes it likes to ``exchange``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Group

from tidegate.wire.inner_api import frame

KEY = "inner-key-of-the-test"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"


class Exchange:
    """One request and the connection to answer it on."""

    def __init__(
        self, sock: Any, path: str, headers: dict[str, str], body: bytes, extra: bytes
    ) -> None:
        self.sock = sock
        self._extra = extra + b"\r\n"
        self.path = path
        self.headers = headers
        self.raw = body
        self.body: dict[str, Any] = json.loads(body)

    def json(self, value: Any, status: str = "200 OK") -> None:
        """Answer with JSON and a length."""
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        length = b"Content-Length: %d\r\n" % len(body)
        self.sock.sendall(head.encode() + length + self._extra + body)

    def begin(self) -> None:
        """The head of a stream."""
        self.sock.sendall(HEAD + self._extra)

    def piece(self, data: bytes) -> None:
        """One HTTP chunk."""
        self.sock.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def send(self, data: Any, error: str = "") -> None:
        """One frame in a chunk of its own."""
        self.piece(frame(json.dumps({"data": data, "error": error}).encode()))

    def finish(self) -> None:
        """The orderly end of a stream."""
        self.sock.sendall(b"0\r\n\r\n")


type Handler = Callable[[Exchange], Any]


def stream(*chunks: Any, pause: float = 0.0) -> Handler:
    """A handler that streams these, one frame each."""

    def handle(exchange: Exchange) -> None:
        exchange.begin()
        for chunk in chunks:
            exchange.send(chunk)
            if pause:
                gevent.sleep(pause)
        exchange.finish()

    return handle


class FakeDify:
    """The server. ``calls`` keeps every request, ``left`` is set when a client closed early.

    ``keeps_alive`` off: no connection stays open between two tests that share this one.
    """

    def __init__(self) -> None:
        self.keeps_alive = True
        self.calls: list[Exchange] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.left = Event()
        self.arrived = Event()
        self._handlers: dict[str, Handler] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._greenlets = Group()
        self._greenlets.spawn(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def environ(self) -> dict[str, str]:
        """The settings that lead here."""
        return {"DIFY_INNER_API_URL": self.url, "DIFY_INNER_API_KEY": KEY}

    def on(self, path: str, handler: Handler) -> None:
        """Answer ``path`` below ``/inner/api/`` with ``handler`` from now on."""
        self._handlers[path] = handler

    def close(self) -> None:
        self._listener.close()
        self._greenlets.kill()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._greenlets.spawn(self._serve, sock)

    def _serve(self, sock: Any) -> None:
        with sock, sock.makefile("rb") as file:
            try:
                while exchange := self._read(sock, file):
                    self._answer(exchange)
                    if not self.keeps_alive:
                        return
            except OSError:
                self.left.set()

    def _read(self, sock: Any, file: Any) -> Exchange | None:
        first = file.readline().decode()
        if not first:
            return None
        headers = {}
        while line := file.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers["content-length"]))
        path = first.split(" ")[1].removeprefix("/inner/api/")
        return Exchange(sock, path, headers, body, b"" if self.keeps_alive else CLOSE)

    def _answer(self, exchange: Exchange) -> None:
        self.calls.append(exchange)
        self.arrived.set()
        if exchange.headers.get("x-inner-api-key") != KEY:
            exchange.json({"code": "not_found", "message": "wrong key"}, "404 NOT FOUND")
            return
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            answer = self._handlers[exchange.path](exchange)
        finally:
            self.open -= 1
        if answer is not None:
            exchange.json({"data": answer, "error": ""})


@contextmanager
def fake_dify() -> Iterator[FakeDify]:
    """A server of this test's own."""
    dify = FakeDify()
    try:
        yield dify
    finally:
        dify.close()
