"""Lines to a plugin: whole, in order, within a budget, and never waiting."""

import fcntl
import os

import gevent
import pytest
from gevent import monkey

from tidegate.hosts.writer import Writer

PIPE = 4096
# gevent's own close takes its time; the test's pipe must be closed when it says so.
close_now = monkey.get_original("os", "close")


class Plugin:
    """The reading end of a small pipe, a writer on the other, and its greenlet."""

    def __init__(self, budget=1 << 20):
        self.fd, write = os.pipe()
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, PIPE)
        self.breaks = 0
        self.writer = Writer(write, budget, self.broke)
        self.greenlet = gevent.spawn(self.writer.run)
        gevent.sleep(0)

    def broke(self):
        self.breaks += 1

    def read(self, size=1 << 20):
        gevent.sleep(0.02)
        return os.read(self.fd, size)

    def read_lines(self, count):
        data = b""
        while data.count(b"\n") < count:
            data += self.read()
        return data.split(b"\n")[:-1]

    def close(self):
        self.greenlet.kill()
        self.writer.close()
        if self.fd >= 0:
            os.close(self.fd)


@pytest.fixture
def plugin():
    one = Plugin()
    yield one
    one.close()


def test_a_line_goes_out_at_once_when_the_pipe_takes_it(plugin):
    assert plugin.writer.send(b"hello")
    assert os.read(plugin.fd, 100) == b"hello\n"
    assert plugin.writer.pending == 0


def test_lines_stay_whole_and_in_order_when_the_pipe_is_full(plugin):
    lines = [bytes([65 + number]) * 3000 for number in range(10)]
    for number, line in enumerate(lines):
        assert plugin.writer.send(line, key=number)
    assert plugin.writer.pending > 20_000
    assert plugin.read_lines(10) == lines
    assert plugin.writer.pending == 0


def test_a_waiting_line_can_be_taken_back_and_one_that_has_begun_goes_out_whole(plugin):
    plugin.writer.send(b"a" * 6000, key="begun")
    plugin.writer.send(b"b" * 6000, key="waiting")
    plugin.writer.send(b"c", key="last")
    plugin.writer.discard("begun")
    plugin.writer.discard("waiting")
    plugin.writer.discard("unknown")
    assert plugin.read_lines(2) == [b"a" * 6000, b"c"]
    assert plugin.writer.pending == 0


def test_over_the_budget_a_line_is_refused_but_what_goes_out_does_not_count():
    plugin = Plugin(budget=10_000)
    assert plugin.writer.send(b"x" * 50_000)
    assert plugin.writer.send(b"y" * 9_000)
    assert not plugin.writer.send(b"z" * 2_000)
    assert plugin.read_lines(2) == [b"x" * 50_000, b"y" * 9_000]
    assert plugin.writer.send(b"z" * 2_000)
    plugin.close()


def test_one_huge_line_waits_beside_the_budget_and_refuses_nobody():
    plugin = Plugin(budget=10_000)
    plugin.writer.send(b"a" * 6_000)
    assert plugin.writer.send(b"h" * 50_000, key="huge")
    assert not plugin.writer.send(b"g" * 50_000)
    assert plugin.writer.send(b"small")
    assert plugin.read_lines(3) == [b"a" * 6_000, b"h" * 50_000, b"small"]
    assert plugin.writer.pending == 0
    plugin.close()


def test_a_huge_line_that_is_taken_back_makes_room_for_another():
    plugin = Plugin(budget=10_000)
    plugin.writer.send(b"a" * 6_000)
    plugin.writer.send(b"h" * 50_000, key="huge")
    plugin.writer.discard("huge")
    assert plugin.writer.send(b"g" * 50_000)
    assert plugin.read_lines(2) == [b"a" * 6_000, b"g" * 50_000]
    plugin.close()


def test_a_line_in_pieces_goes_out_whole(plugin):
    whole = bytes(range(32, 127)) * 1000
    pieces = tuple(memoryview(whole)[at : at + 700] for at in range(0, len(whole), 700))
    assert plugin.writer.send(pieces)
    assert plugin.writer.send(b"next")
    assert plugin.writer.pending > 0
    assert plugin.read_lines(2) == [whole, b"next"]
    assert plugin.writer.pending == 0


@pytest.mark.parametrize("size", [PIPE - 1, PIPE, PIPE + 1, PIPE - 2])
def test_no_length_loses_its_newline(plugin, size):
    plugin.writer.send(b"n" * size)
    plugin.writer.send(b"after")
    assert plugin.read_lines(2) == [b"n" * size, b"after"]


def test_a_closed_pipe_is_told_once_and_nothing_raises(plugin):
    close_now(plugin.fd)
    plugin.fd = -1
    assert plugin.writer.send(b"lost")
    assert plugin.writer.send(b"lost too")
    assert plugin.breaks == 1
    assert plugin.writer.broken


def test_a_pipe_that_closes_while_lines_wait_is_told_once(plugin):
    for number in range(5):
        plugin.writer.send(b"w" * 3000, key=number)
    close_now(plugin.fd)
    plugin.fd = -1
    gevent.sleep(0.05)
    assert plugin.breaks == 1
    assert plugin.writer.pending == 0
