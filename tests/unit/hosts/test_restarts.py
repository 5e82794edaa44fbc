"""When a plugin that died may be started again; the clock is the test's."""

import pytest

from tidegate.hosts.restarts import Restarts
from tidegate.testing.clocks import HandClock


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


def test_T_K3_waits_grow_from_half_a_second_to_half_a_minute_over_a_hundred_deaths(clock):
    restarts = Restarts(0, clock)
    waits = []
    for _ in range(100):
        died(restarts)
        waits.append(restarts.wait)
        clock.pass_time(restarts.wait / 2)
        assert restarts.wait == waits[-1] / 2
        clock.pass_time(restarts.wait)
        assert restarts.wait == 0
    assert waits == [0, 0.5, 1, 2, 4, 8, 16, *[30] * 93]
    assert restarts.deaths == 100


def test_five_deaths_in_a_row_quarantine_until_their_time(clock):
    restarts = Restarts(300, clock)
    died(restarts, 4)
    assert restarts.error("acme/x", "why") is None
    died(restarts)
    error = restarts.error("acme/x", "exit code 3")
    assert error is not None
    assert error.details["until"] == int(clock.now().timestamp() + 300)
    assert "exit code 3" in error.message
    clock.pass_time(301)
    assert restarts.error("acme/x", "") is None
    died(restarts)
    assert restarts.quarantined_until is not None


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
