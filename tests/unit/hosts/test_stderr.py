"""The tail of standard error that stands in errors."""

import os
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from tidegate.environments import ReadEnd
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.stderr import Allowance, StandardError
from tidegate.testing.clocks import HandClock

close_now = monkey.get_original("os", "close")


@pytest.fixture
def written(tmp_path: Path):
    """What is kept of a text written to standard error."""
    logs = []

    def write(text: bytes) -> StandardError:
        read, end = os.pipe()
        logs.append(PluginLog(tmp_path / "plugin.log"))
        pipe = ReadEnd(read)
        error = StandardError(pipe, logs[-1])
        greenlet = gevent.spawn(error.drain)
        for start in range(0, len(text), 4096):
            os.write(end, text[start : start + 4096])
            gevent.sleep(0)
        close_now(end)
        greenlet.join(5)
        pipe.close()
        return error

    yield write
    for log in logs:
        log.close()


def test_the_tail_begins_with_a_whole_line(written):
    lines = [f"line {number} of a long traceback".encode() for number in range(200)]
    tail = written(b"\n".join(lines) + b"\n").tail(30, 300)
    assert tail.splitlines() == lines[-len(tail.splitlines()) :]
    assert 200 < len(tail) <= 300


def test_a_tail_that_fits_is_kept_whole_and_a_line_without_end_is_cut(written):
    assert written(b"one\ntwo\n").tail(30, 4096) == b"one\ntwo"
    assert written(b"a\nb\nc\n").tail(2, 4096) == b"b\nc"
    assert written(b"x" * 10_000).tail(30, 100) == b"x" * 100
    assert written(b"aaaa\nbbb").tail(30, 3) == b"bbb"
    assert written(b"").tail(30, 100) == b""


def test_a_burst_is_read_without_a_rest_and_a_flood_at_a_bounded_rate():
    clock = HandClock()
    allowance = Allowance(clock)
    assert sum(allowance.spend(64 << 10) for _ in range(100)) == 0, "6 MiB at once"
    read, begun = 0, clock.monotonic()
    while clock.monotonic() - begun < 60:
        clock.pass_time(allowance.spend(64 << 10) or 0.0001)
        read += 64 << 10
    assert 60 * 11 < read / (1 << 20) < 60 * 13 + 32
    clock.pass_time(10)
    assert allowance.spend(16 << 20) == 0, "a plugin that was quiet may burst again"
