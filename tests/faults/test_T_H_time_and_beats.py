"""Clocks that jump, beats that are doubled."""

from __future__ import annotations

import itertools
from collections import Counter

import gevent
import pytest
from celery import Celery
from celery.beat import event_t

from tidegate.api.guessing import Guesses
from tidegate.deadline import Deadline
from tidegate.hosts.restarts import Restarts
from tidegate.runtime.drain import Drain
from tidegate.settings import Settings
from tidegate.storage import Database, migrate, ticks
from tidegate.testing.clocks import HandClock
from tidegate.worker.ticking import scheduler_for

HOUR, DAY = 3600.0, 86400.0
JUMPS = (HOUR, -HOUR, DAY, -DAY)


@pytest.fixture
def settings(tmp_path) -> Settings:
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    migrate(settings)
    return settings


@pytest.fixture
def database(settings):
    database = Database(settings)
    yield database
    database.dispose()


@pytest.mark.parametrize("jump", JUMPS)
def test_T_H1_a_jump_moves_no_grace_no_block_and_no_back_off(jump):
    clock = HandClock()
    drain, guesses = Drain(clock), Guesses(clock)
    drain.begin(30)
    for _ in range(20):
        guesses.failed("10.0.0.1")
    blocked = guesses.blocked("10.0.0.1")
    clock.jump(jump)
    assert drain.remaining == 30
    assert guesses.blocked("10.0.0.1") == blocked
    clock.pass_time(10)
    assert drain.remaining == 20


@pytest.mark.parametrize("jump", JUMPS)
def test_T_H1_a_jump_moves_no_restart(jump):
    clock = HandClock()
    restarts = Restarts(300, clock)
    for _ in range(5):
        restarts.died(ready=True, lived=1.0, served=0)
    wait, error = restarts.wait, restarts.error("plugin", "gone")
    assert wait > 0
    assert error is not None
    clock.jump(jump)
    assert restarts.wait == wait
    assert "300 s" in restarts.error("plugin", "gone").message


def test_T_H1_a_deadline_is_a_distance_and_not_a_time_of_day():
    deadline = Deadline.after(30, "test")
    assert 29 < deadline.remaining() <= 30


@pytest.mark.parametrize("jump", JUMPS)
def test_T_H1_the_schedule_goes_on_after_a_jump_and_skips_one_tick_at_most(database, jump):
    clock = HandClock()

    def claim() -> bool:
        with database.write() as conn:
            return ticks.claim(conn, "resume", 10, clock)

    assert claim()
    clock.jump(jump)
    claimed = 0
    for _ in range(3):
        clock.pass_time(10)
        claimed += claim()
    assert claimed >= 2


def test_T_H1_slewing_by_a_tenth_loses_no_tick(database):
    clock = HandClock()
    for _ in range(20):
        with database.write() as conn:
            assert ticks.claim(conn, "resume", 10, clock)
        clock.pass_time(10)
        clock.jump(-0.9)


# --------------------------------------------------------------------------- two beats

EVERY = 0.5


class Beat:
    """A beat as `tidegate beat` has it, with a shorter schedule and a broker that only counts."""

    def __init__(self, settings: Settings, sent: list[tuple[str, float]], name: str) -> None:
        app = Celery("beats", broker="memory://", changes={"task_ignore_result": True})
        app.conf.beat_schedule = {"tick": {"task": "tests.tick", "schedule": EVERY}}
        app.send_task = lambda *args, **options: sent.append((name, gevent.get_hub().loop.now()))
        self.scheduler = scheduler_for(settings)(app)
        self.loop = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            gevent.sleep(max(self.scheduler.tick(event_t=event_t), 0.01))

    def end(self) -> None:
        self.loop.kill()
        self.scheduler.close()


def test_T_H6_R17_D_51_two_beats_are_as_one_and_the_second_takes_over(settings):
    sent: list[tuple[str, float]] = []
    first = Beat(settings, sent, "first")
    gevent.sleep(EVERY / 4)
    second = Beat(settings, sent, "second")
    gevent.sleep(EVERY * 6)
    first.end()
    each = Counter(name for name, _ in sent)
    gaps = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(sent)]
    alone = len(sent)
    gevent.sleep(EVERY * 4)
    second.end()
    assert 4 <= alone <= 8
    assert min(gaps) > EVERY * 0.8, gaps
    assert len(each) == 1, each
    assert len(sent) - alone >= 2
    assert set(each) == {"first"}
    assert {name for name, _ in sent[alone:]} == {"second"}


def test_T_H6_a_tick_is_claimed_once_by_twenty_at_once(settings):
    databases = [Database(settings) for _ in range(20)]
    claimed = []

    def claim(database: Database) -> None:
        with database.write() as conn:
            claimed.append(ticks.claim(conn, "clean", 30))

    gevent.joinall([gevent.spawn(claim, one) for one in databases], raise_error=True)
    for one in databases:
        one.dispose()
    assert sum(claimed) == 1
