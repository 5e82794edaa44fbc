"""Many deadlines on one timer."""

import gevent

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
