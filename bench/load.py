"""The client side of a measurement: many streams on raw sockets and one selector."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tidegate.cli.target import Target

EVENT = b"data: "
END = b"0\r\n\r\n"


def request(
    target: Target, plugin: str, parameters: dict[str, Any], *, provider: str = "producer"
) -> bytes:
    """The raw request that invokes the tool ``produce``."""
    data = {
        "provider": provider,
        "tool": "produce",
        "tool_parameters": parameters,
        "credentials": {},
    }
    body = json.dumps({"user_id": "bench", "data": data}).encode()
    head = (
        f"POST /plugin/{target.tenant}/dispatch/tool/invoke HTTP/1.1\r\nHost: bench\r\n"
        f"X-Api-Key: {target.key.reveal()}\r\nX-Plugin-ID: {plugin}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Streams:
    """``number`` streams at once; counts events until each has ended."""

    target: Target
    chunks: int = 0
    latencies: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: int = 0
    said: str = ""

    def run(self, requests: list[bytes], *, timed: bool = False, limit: float = 60.0) -> float:
        """Send all, read all; gives the seconds it took."""
        selector = selectors.DefaultSelector()
        started = time.monotonic()
        for one in requests:
            connection = self.connect()
            connection.sendall(one)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, bytearray())
        while selector.get_map():
            if time.monotonic() - started > limit:
                raise SystemExit(f"streams did not end within {limit} s ({self.chunks} chunks)")
            for key, _ in selector.select(1):
                connection = key.fileobj
                data = connection.recv(1 << 18)  # type: ignore[union-attr]
                tail = key.data
                self._count(bytes(tail) + data, len(tail), timed=timed)
                tail[:] = (bytes(tail) + data)[-len(EVENT) + 1 :]
                if not data or data.endswith(END):
                    selector.unregister(connection)
                    connection.close()  # type: ignore[union-attr]
        return time.monotonic() - started

    def connect(self) -> socket.socket:
        """A connection to the server under test."""
        host, port = self.target.base.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)))

    def _count(self, data: bytes, skip: int, *, timed: bool) -> None:
        del skip
        self.chunks += data.count(EVENT)
        if (at := data.find(b'"code":-')) >= 0:
            self.errors += 1
            self.said = data[at : at + 400].decode(errors="replace")
        if timed:
            now = time.monotonic_ns()
            for part in data.split(b'"text":"')[1:]:
                text = part.split(b'"', 1)[0]
                if text.isdigit():
                    self.latencies.append((now - int(text)) / 1e3)


def calls(target: Target, one: bytes, connections: int, seconds: float) -> int:
    """Keep-alive calls, one chunk each, on so many connections; gives how many were answered."""
    streams = Streams(target)
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = streams.connect()
        connection.sendall(one)
        selector.register(connection, selectors.EVENT_READ, bytearray())
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in selector.select(1):
            buffer: bytearray = key.data
            buffer += key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            if buffer.endswith(END):
                if b'"code":0' not in buffer:
                    raise SystemExit(f"a call failed: {bytes(buffer[-300:])!r}")
                done += 1
                buffer.clear()
                key.fileobj.sendall(one)  # type: ignore[union-attr]
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return done


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def median(measure: Callable[[], float], times: int = 3) -> float:
    """The middle one of some repetitions."""
    return sorted(measure() for _ in range(times))[times // 2]
