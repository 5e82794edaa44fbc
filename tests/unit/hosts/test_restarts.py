"""When a plugin that died may be started again; the clock is the test's."""

from datetime import UTC, datetime, timedelta

import pytest

from tidegate.hosts.restarts import Restarts


class HandClock:
    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def clock():
    return HandClock()


def died(restarts, times=1, **how):
    for _ in range(times):
        restarts.died(**{"ready": True, "lived": 1.0, "served": 0, **how})


def test_the_first_death_is_forgiven_at_once(clock):
    restarts = Restarts(300, clock)
    died(restarts)
    assert restarts.wait == 0


def test_T_K3_waits_grow_with_each_death_in_a_row(clock):
    restarts = Restarts(300, clock)
    waits = []
    for _ in range(4):
        died(restarts)
        waits.append(restarts.wait)
    assert waits == [0, 0.5, 1.0, 2.0]
    clock.seconds += 2
    assert restarts.wait == 0


def test_five_deaths_in_a_row_quarantine_until_their_time(clock):
    restarts = Restarts(300, clock)
    died(restarts, 4)
    assert restarts.error("acme/x", "why") is None
    died(restarts)
    error = restarts.error("acme/x", "exit code 3")
    assert error is not None
    assert error.details["until"] == int(clock.now().timestamp() + 300)
    assert "exit code 3" in error.message
    clock.seconds += 301
    assert restarts.error("acme/x", "") is None
    died(restarts)
    assert restarts.quarantined_until is not None


def test_waits_have_a_longest(clock):
    restarts = Restarts(0, clock)
    died(restarts, 20)
    assert restarts.wait == 30


@pytest.mark.parametrize("how", [{"served": 1}, {"lived": 61.0}])
def test_a_process_that_did_its_work_does_not_count(clock, how):
    restarts = Restarts(300, clock)
    died(restarts, 4)
    died(restarts, **how)
    died(restarts)
    assert restarts.wait == 0
    assert restarts.deaths == 6


def test_a_start_that_came_to_nothing_counts_however_long_it_took(clock):
    restarts = Restarts(300, clock)
    died(restarts, 5, ready=False, lived=120.0)
    assert restarts.quarantined_until is not None


def test_forgiving_ends_a_quarantine(clock):
    restarts = Restarts(300, clock)
    died(restarts, 7)
    restarts.forgive()
    assert restarts.quarantined_until is None
    assert restarts.wait == 0
