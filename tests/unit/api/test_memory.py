"""When memory is given back."""

from __future__ import annotations

import gevent
import pytest

from tidegate.api import memory
from tidegate.runtime.heap import Rest
from tidegate.testing.clocks import HandClock


@pytest.fixture
def given_back(monkeypatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(memory, "trim", lambda: calls.append(0))
    monkeypatch.setattr(memory, "SETTLE", 0.01)
    return calls


@pytest.mark.blocks_hub("a collection walks all that the test run has loaded")
def test_it_is_given_back_once_when_a_large_peak_is_over(given_back) -> None:
    peak = memory.Peak()
    for count in range(1, 1001):
        peak.grown(count)
    for count in range(999, -1, -1):
        peak.shrunk(count)
    gevent.sleep(0.05)
    assert given_back == [0]


def test_small_peaks_and_slow_declines_are_left_alone(given_back) -> None:
    peak = memory.Peak()
    for count in range(1, memory.LARGE):
        peak.grown(count)
    peak.shrunk(0)
    for count in range(memory.LARGE, 0, -1):
        peak.grown(memory.LARGE)
        peak.shrunk(max(count, memory.LARGE // 2))
    gevent.sleep(0.05)
    assert given_back == []


def test_an_api_at_rest_gives_back_what_is_free_once_a_minute(given_back) -> None:
    clock = HandClock()
    peak = memory.Peak()
    peak._rest = Rest(clock)
    for seconds in (59, 2, 58, 3):
        clock.pass_time(seconds)
        peak.grown(2)
        peak.shrunk(1)
        peak.shrunk(0)
        gevent.sleep(0.05)
    assert given_back == [0, 0]
