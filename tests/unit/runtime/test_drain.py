"""The drain: told once, never late, shortened but never lengthened."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.runtime.drain import ON_THEIR_WAY, Drain


class Jumping:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


def test_nothing_drains_before_it_begins():
    drain = Drain(Jumping())
    assert not drain.draining
    assert drain.remaining == float("inf")


def test_everybody_registered_is_told_the_seconds_once():
    drain = Drain(Jumping())
    told: list[float] = []
    drain.on_begin(told.append)
    drain.on_begin(told.append)()
    drain.begin(5)
    drain.begin(5)
    assert told == [5]
    assert drain.draining


def test_who_comes_late_is_told_at_once_what_is_left():
    clock = Jumping()
    drain = Drain(clock)
    drain.begin(5)
    clock.seconds += 2
    told: list[float] = []
    drain.on_begin(told.append)
    assert told == [3]
    clock.seconds += 10
    assert drain.remaining == 0


def test_the_grace_is_shortened_and_never_lengthened():
    drain = Drain(Jumping())
    told: list[float] = []
    drain.on_begin(told.append)
    drain.begin(5)
    drain.begin(9)
    drain.begin(0)
    assert told == [5, 0]


def test_who_left_is_not_told():
    drain = Drain(Jumping())
    told: list[float] = []
    leave = drain.on_begin(told.append)
    leave()
    leave()
    drain.begin(1)
    assert told == []


def test_a_callback_may_leave_while_it_is_told():
    drain = Drain(Jumping())
    told: list[float] = []
    leaves = []

    def tell(seconds: float) -> None:
        told.append(seconds)
        leaves[0]()

    leaves.append(drain.on_begin(tell))
    drain.on_begin(told.append)
    drain.begin(1)
    assert told == [1, 1]


def test_requests_on_their_way_are_served_and_later_ones_refused():
    clock = Jumping()
    drain = Drain(clock)
    assert not drain.refusing
    drain.begin(20)
    clock.seconds += ON_THEIR_WAY
    assert not drain.refusing
    clock.seconds += 0.1
    assert drain.refusing


def test_without_a_grace_everything_is_refused_at_once():
    drain = Drain(Jumping())
    drain.begin(0)
    assert drain.refusing
