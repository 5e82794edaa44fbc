"""Sending pieces, whatever the socket takes at a time."""

from __future__ import annotations

import gevent
import pytest
from gevent import socket

from tidegate.api.transmit import JOIN_BELOW, head, send_all


@pytest.mark.parametrize(
    "pieces",
    [
        [b"a", b"bc"],
        [b"x" * JOIN_BELOW, b"y"],
        [b"x" * 3_000_000],
        [bytes([index % 256]) * 100 for index in range(2000)],
        [b"", b"x" * JOIN_BELOW, b"", b"y" * 5],
    ],
)
def test_every_piece_arrives_in_order(pieces: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    wanted = b"".join(pieces)

    def read() -> bytes:
        got = b""
        while len(got) < len(wanted):
            got += theirs.recv(65536)
        return got

    reader = gevent.spawn(read)
    send_all(ours, pieces)
    assert reader.get() == wanted
    ours.close()
    theirs.close()


def test_heads_are_whole() -> None:
    made = head(404, (("Content-Type", "text/plain"),)).decode()
    assert made.startswith("HTTP/1.1 404 Not Found\r\nDate: ")
    assert made.endswith(" GMT\r\nContent-Type: text/plain\r\n\r\n")
    assert head(404, (("Content-Type", "text/plain"),)).decode() == made
