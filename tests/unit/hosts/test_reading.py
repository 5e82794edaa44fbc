"""How a plugin's output is read: floods are gathered, nothing taken is kept back."""

from __future__ import annotations

import fcntl
import os
import socket
import time

import gevent
import pytest
from gevent import monkey

from tidegate.environments import ReadEnd
from tidegate.hosts.debugging.instance import _Socket
from tidegate.hosts.reading import read_all

_MIB = 1 << 20
# gevent's own close is done when the hub has run, which may be busy waiting for this very end.
_close = monkey.get_original("os", "close")


class Recorder:
    """What a reader took, and after how many takes it sent."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.sent_after: list[int] = []
        self.on_take = lambda: None

    def take(self, data: bytes) -> None:
        self.taken.append(len(data))
        self.on_take()

    def send(self) -> None:
        self.sent_after.append(len(self.taken))


@pytest.fixture
def pipe():
    read, write = os.pipe()
    end = ReadEnd(read)
    yield end, write
    end.close()


def fill(fd: int, size: int) -> None:
    """Write as much as goes in, ``size`` bytes at most."""
    os.set_blocking(fd, False)
    data = b"x" * size
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BlockingIOError:
        return


def test_each_read_of_a_calm_plugin_is_sent_at_once(pipe):
    end, write = pipe
    seen = Recorder()
    reader = gevent.spawn(read_all, end, seen.take, seen.send)
    for _ in range(3):
        os.write(write, b"line\n")
        gevent.idle()
    _close(write)
    reader.get(timeout=5)
    assert seen.sent_after == list(range(1, len(seen.taken) + 1))
    assert sum(seen.taken) == 15


def test_a_full_pipe_is_widened_and_a_flood_gathered_up_to_a_bound(pipe):
    end, write = pipe
    seen = Recorder()
    seen.on_take = lambda: fill(write, _MIB) if len(seen.taken) < 40 else None
    fill(write, _MIB)
    reader = gevent.spawn(read_all, end, seen.take, seen.send)
    while len(seen.taken) < 40:
        gevent.idle()
    _close(write)
    reader.get(timeout=5)
    assert fcntl.fcntl(end.fd, fcntl.F_GETPIPE_SZ) == _MIB
    gathered = [
        sum(seen.taken[start:stop])
        for start, stop in zip([0, *seen.sent_after], seen.sent_after, strict=False)
    ]
    assert max(gathered) >= 4 * _MIB
    assert max(gathered) < 6 * _MIB


def test_a_reader_that_is_killed_while_it_gathers_sends_what_it_took(pipe):
    end, write = pipe
    seen = Recorder()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _MIB)
    fill(write, _MIB)

    def refill_then_die() -> None:
        fill(write, _MIB)
        if len(seen.taken) == 2:
            reader.kill(block=False)

    seen.on_take = refill_then_die
    reader = gevent.spawn(read_all, end, seen.take, seen.send)
    reader.join(timeout=5)
    _close(write)
    assert reader.dead
    assert seen.sent_after[-1] == len(seen.taken) >= 2


def test_a_connection_is_read_like_a_pipe_though_it_cannot_be_widened():
    ours, theirs = socket.socketpair()

    class Connection:
        fd = ours.fileno()

        def read(self, size: int) -> bytes:
            return ours.recv(size)

    seen = Recorder()
    with ours:
        writer = gevent.spawn(theirs.sendall, bytes(3 * _MIB))
        writer.link(lambda _: theirs.close())
        read_all(Connection(), seen.take, seen.send)
    assert sum(seen.taken) == 3 * _MIB
    assert max(seen.taken) >= 64 << 10, "never so much at once that it would be widened"


def test_T_P4_what_is_dear_to_look_at_is_read_in_smaller_and_smaller_pieces(pipe):
    """Lines that nobody can read cost most; one megabyte of them held up everybody else."""
    end, write = pipe
    seen = Recorder()

    def dear() -> None:
        until = time.monotonic() + seen.taken[-1] / _MIB / 2
        while len(seen.taken) < 20 and time.monotonic() < until:
            pass
        if len(seen.taken) < 40:
            fill(write, _MIB)
        elif len(seen.taken) == 40:
            _close(write)

    seen.on_take = dear
    fill(write, _MIB)
    read_all(end, seen.take, seen.send)
    assert max(seen.taken[:5]) >= 64 << 10
    assert max(seen.taken[10:20]) <= 32 << 10
    assert max(seen.taken[30:]) >= 256 << 10, "and more again when it is cheap"


def test_T_P1_a_connection_that_is_never_empty_leaves_sockets_and_timers_their_turn() -> None:
    """gevent's recv does not wait for what is there, and its sleep(0) looks at no timer."""
    ours, theirs = socket.socketpair()
    ticks = [0]
    timer = gevent.get_hub().loop.timer(0.0005, 0.0005)
    seen: list[int] = []

    def take(data: bytes) -> None:
        seen.append(ticks[0])
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        theirs.sendall(b"x" * 20_000) if len(seen) < 100 else theirs.close()

    timer.start(lambda: ticks.__setitem__(0, ticks[0] + 1))
    theirs.sendall(b"x" * 20_000)
    try:
        read_all(_Socket(ours), take, lambda: None)
    finally:
        timer.stop()
        timer.close()
        ours.close()
    # Nearly every read came after a timer's turn; sleep(0) gave it one in fifty, recv alone none.
    assert len(set(seen)) > 50
