"""Many deadlines on one timer."""

import time

import gevent
import pytest

from tidegate.hosts.deadlines import Deadlines


def made():
    expired = []
    return Deadlines(expired.append), expired


def test_sessions_expire_in_their_order_and_not_before_their_time():
    deadlines, expired = made()
    deadlines.add("late", 0.35)
    deadlines.add("soon", 0.01)
    gevent.sleep(0.25)
    assert expired == ["soon"]
    gevent.sleep(0.3)
    assert expired == ["soon", "late"]
    assert len(deadlines) == 0
    deadlines.close()


def test_a_session_that_ended_does_not_expire():
    deadlines, expired = made()
    deadlines.add("ended", 0.01)
    deadlines.discard("ended")
    deadlines.discard("ended")
    gevent.sleep(0.25)
    assert expired == []
    deadlines.close()


def test_a_session_may_be_discarded_by_another_ones_end():
    seen = []

    def expire(session_id):
        seen.append(session_id)
        deadlines.discard("b" if session_id == "a" else "a")

    deadlines = Deadlines(expire)
    deadlines.add("a", 0.01)
    gevent.sleep(0.25)
    deadlines.add("b", 0.01)
    gevent.sleep(0.25)
    assert seen == ["a", "b"]
    deadlines.close()


def test_closing_ends_the_timer_and_everything_with_it():
    deadlines, expired = made()
    deadlines.add("never", 0.01)
    deadlines.close()
    gevent.sleep(0.2)
    assert expired == []


def test_many_short_sessions_leave_nothing_behind():
    deadlines, _ = made()
    for number in range(20_000):
        deadlines.add(str(number), 600)
        deadlines.discard(str(number))
    assert len(deadlines) == 0
    assert len(deadlines._heap) < 50
    deadlines.close()


def test_sessions_of_many_moments_leave_nothing_behind_either():
    """Nor do they take along who still waits: one of the thousand is due while they come and go."""
    deadlines, expired = made()
    deadlines.add("due", 0.2)
    for number in range(1000):
        deadlines.add(str(number), 600 + number)
        deadlines.discard(str(number))
    deadlines.add("again", 600)
    deadlines.discard("again")
    assert len(deadlines._sets) == len(deadlines._heap) < 150
    gevent.sleep(0.5)
    assert expired == ["due"]
    deadlines.close()


def test_a_moment_that_became_empty_serves_again():
    deadlines, expired = made()
    for number in range(200):
        deadlines.add(str(number), 0.3 + number)
        deadlines.discard(str(number))
        deadlines.add(f"{number} again", 0.3 + number)
    assert deadlines._empty == 0
    gevent.sleep(0.6)
    assert expired == ["0 again"]
    assert len(deadlines._sets) == len(deadlines) == 199
    deadlines.close()
    assert deadlines._empty == 0


def test_a_crowd_that_is_due_together_lets_others_run_in_between():
    turns = []
    deadlines = Deadlines(lambda session_id: turns.append("expired"))
    for number in range(2000):
        deadlines.add(str(number), 0.01)
    while turns.count("expired") < 2000:
        gevent.sleep(0)
        turns.append("somebody else")
    first = turns.index("expired")
    crowd = turns[first : len(turns) - turns[::-1].index("expired")]
    assert "somebody else" in crowd
    longest = max(len(part) for part in "".join(t[0] for t in crowd).split("s"))
    assert longest <= 256
    assert len(deadlines) == 0
    deadlines.close()


def test_a_defect_at_one_end_does_not_stop_the_timer_for_others():
    seen = []

    def expire(session_id):
        seen.append(session_id)
        if session_id == "first":
            raise RuntimeError("a defect of ours")

    deadlines = Deadlines(expire)
    deadlines.add("first", 0.01)
    deadlines.add("second", 0.25)
    deadlines._disarm()  # by hand, so that the hub has nothing to print
    time.sleep(0.12)
    with pytest.raises(RuntimeError):
        deadlines._fire()
    gevent.sleep(0.4)
    assert seen == ["first", "second"]
    deadlines.close()
