"""Clients that are no good: on bare sockets, against a stack with the misbehaving plugin."""

from __future__ import annotations

import ctypes
import json
import socket
import struct

from tests.stack import Answer, Stack

MISBEHAVE = "tidegate/misbehave"
_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 bytes of every packet


def data_of(deed: str, **given: object) -> dict[str, object]:
    """The body's ``data`` for a deed of the misbehaving plugin."""
    return {
        "provider": "misbehave",
        "tool": "act",
        "tool_parameters": {"deed": deed, **given},
        "credentials": {},
    }


def act(stack: Stack, deed: str, plugin: str = MISBEHAVE, **given: object) -> Answer:
    """One deed, read to its end."""
    return stack.call(plugin, "tool/invoke", data_of(deed, **given))


def request_of(stack: Stack, deed: str, **given: object) -> bytes:
    """The bytes of a call."""
    path, body, headers = stack.request(MISBEHAVE, "tool/invoke", data_of(deed, **given))
    lines = [f"POST {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def opened(stack: Stack, deed: str, *, buffer: int = 0, **given: object) -> socket.socket:
    """A call on a bare socket, its request sent."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", stack.port))
    sock.sendall(request_of(stack, deed, **given))
    return sock


def lose_network(sock: socket.socket) -> None:
    """From now on nothing reaches this socket, and nothing is acknowledged: no FIN and no RST.

    As if its cable were cut. The kernel drops each packet at a socket filter, before TCP sees it.
    """
    program = ctypes.create_string_buffer(_DROP_ALL)
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", 1, ctypes.addressof(program))
    )


def sessions(stack: Stack) -> int:
    """Sessions that any plugin serves now."""
    status, raw = stack.ask("GET", "/debug/plugins")
    assert status == 200
    return sum(one["sessions"] for one in _with_sessions(json.loads(raw)))


def _with_sessions(value: object) -> list[dict[str, int]]:
    if isinstance(value, list):
        return [found for one in value for found in _with_sessions(one)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("sessions"), int):
        return [value]
    return [found for one in value.values() for found in _with_sessions(one)]
