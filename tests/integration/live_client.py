"""A WebSocket client for tests of the live socket: wsproto on a plain socket."""

from __future__ import annotations

import json
import socket
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)


class LiveClient:
    """One connection. ``closed`` is the close frame's code once it came, or 0 for none."""

    def __init__(
        self, address: tuple[str, int], path: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.closed: int | None = None
        self.pings = 0
        self.answers_pings = True
        self._messages: list[Any] = []
        self._parts = ""
        request = Request(host="x", target=path, extra_headers=headers)
        self.sock.sendall(self.protocol.send(request))
        self.status = 0
        while not self.status:
            self._receive()

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        self.send_event(TextMessage(text))

    def send_event(self, event: Any) -> None:
        self.sock.sendall(self.protocol.send(event))

    def next(self) -> Any:
        """The next message; None when the connection is over."""
        while not self._messages and self.closed is None:
            self._receive()
        return self._messages.pop(0) if self._messages else None

    def all_of(self, call: Any) -> list[Any]:
        """The messages of one call up to its end; those of others must not come."""
        found = []
        while True:
            message = self.next()
            assert message is not None
            assert message["id"] == call
            found.append(message)
            if "end" in message or "error" in message:
                return found

    def wait_closed(self) -> int:
        """The code with which the server closed."""
        while self.closed is None:
            self._receive()
        return self.closed

    def close(self) -> None:
        self.sock.close()

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            self.closed = self.closed or 0
            self.status = self.status or -1
            return
        self.protocol.receive_data(data)
        for event in self.protocol.events():
            self._handle(event)

    def _handle(self, event: Any) -> None:
        if isinstance(event, AcceptConnection):
            self.status = 101
        elif isinstance(event, RejectConnection):
            self.status = event.status_code
        elif isinstance(event, CloseConnection):
            self.closed = event.code
        elif isinstance(event, Ping):
            self.pings += 1
            if self.answers_pings:
                self.send_event(event.response())
        elif isinstance(event, Pong):
            self._messages.append("pong")
        elif isinstance(event, Message):
            self._parts += event.data
            if event.message_finished:
                self._messages.append(json.loads(self._parts))
                self._parts = ""
