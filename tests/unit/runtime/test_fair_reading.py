"""A client that sends without a pause leaves everybody else his turn."""

from __future__ import annotations

import socket

import gevent
from gunicorn.http.unreader import SocketUnreader

from tidegate.runtime.fair_reading import TURN, read_in_turns


class Unreader(SocketUnreader):  # type: ignore[misc] - Gunicorn has no types
    """One of our own: the patch stays in this test."""


def test_reading_what_is_always_there_gives_way() -> None:
    read_in_turns(Unreader)
    ours, theirs = socket.socketpair()
    turns = [0]

    def other() -> None:
        while True:
            gevent.sleep(0)
            turns[0] += 1

    greenlet = gevent.spawn(other)
    gevent.sleep(0.001)
    turns[0] = 0
    try:
        unreader = Unreader(ours, 100)
        theirs.sendall(b"x" * 100 * TURN * 10)
        for _ in range(TURN * 10):
            assert unreader.chunk() == b"x" * 100
        assert turns[0] >= 10
    finally:
        greenlet.kill()
        ours.close()
        theirs.close()
