"""Jobs: each is worked on by one worker at a time, and a worker that lost it changes nothing."""

from __future__ import annotations

from datetime import timedelta

import gevent
import pytest
from sqlalchemy import text

from tidegate.clock import SYSTEM_CLOCK
from tidegate.storage import Database, job_rows
from tidegate.storage.job_rows import JobRow

OVER = timedelta(seconds=3600)


def _enqueue(database: Database, key: str = "a") -> JobRow:
    with database.write() as conn:
        return job_rows.enqueue(conn, "install", key, '{"x":1}')


def _claim(database: Database, job: JobRow, owner: str = "w1", lease: float = 60) -> JobRow:
    with database.write() as conn:
        claimed = job_rows.claim(conn, job.id, owner, lease)
    assert claimed is not None
    return claimed


@pytest.fixture
def job(database: Database) -> JobRow:
    """An open job that nobody has claimed."""
    return _enqueue(database)


def test_one_open_job_per_kind_and_key(database: Database, job: JobRow) -> None:
    assert _enqueue(database) == job
    assert _enqueue(database, "b").id != job.id
    with database.write() as conn:
        assert job_rows.enqueue(conn, "remove", "a", "{}").id != job.id
        assert job_rows.open_job(conn, "install", "a") == job


def test_a_finished_job_makes_room_for_the_next(database: Database, job: JobRow) -> None:
    claimed = _claim(database, job)
    with database.write() as conn:
        assert job_rows.finish(conn, job.id, claimed.fence, True, "done")
        assert job_rows.open_job(conn, "install", "a") is None
        finished = job_rows.get(conn, job.id)
    assert finished is not None
    assert (finished.ok, finished.note, finished.owner) == (True, "done", None)
    assert finished.finished_at is not None
    assert _enqueue(database).id != job.id


def test_a_claim_gives_a_new_fence(database: Database, job: JobRow) -> None:
    assert job.fence == 0
    claimed = _claim(database, job)
    assert (claimed.fence, claimed.owner, claimed.payload) == (1, "w1", '{"x":1}')


@pytest.mark.parametrize("owner", ["w1", "w2"])
def test_a_second_delivery_ends_at_the_claim(database: Database, job: JobRow, owner: str) -> None:
    _claim(database, job)
    with database.write() as conn:
        assert job_rows.claim(conn, job.id, owner, 60) is None


def test_nobody_claims_what_is_finished_or_unknown(database: Database, job: JobRow) -> None:
    claimed = _claim(database, job)
    with database.write() as conn:
        job_rows.finish(conn, job.id, claimed.fence, False, "")
        assert job_rows.claim(conn, job.id, "w2", 60) is None
        assert job_rows.claim(conn, "malformed", "w2", 60) is None


def test_a_lost_lease_can_be_claimed_and_the_old_fence_changes_nothing(
    database: Database, job: JobRow
) -> None:
    first = _claim(database, job, lease=0)
    second = _claim(database, job, "w2")
    assert second.fence == first.fence + 1
    with database.write() as conn:
        assert not job_rows.renew(conn, job.id, first.fence, 60)
        assert not job_rows.set_state(conn, job.id, first.fence, "building", "")
        assert not job_rows.release(conn, job.id, first.fence)
        assert not job_rows.finish(conn, job.id, first.fence, True, "")
        assert job_rows.set_state(conn, job.id, second.fence, "probing", "note")
        now = job_rows.get(conn, job.id)
    assert now is not None
    assert (now.state, now.note, now.owner) == ("probing", "note", "w2")


def test_a_stale_fence_rolls_the_step_back(database: Database, job: JobRow) -> None:
    first = _claim(database, job, lease=0)
    _claim(database, job, "w2")

    def step() -> None:
        with database.write() as conn:
            conn.execute(text("UPDATE tidegate_generation SET value = 99"))
            if not job_rows.set_state(conn, job.id, first.fence, "installed", ""):
                raise InterruptedError

    with pytest.raises(InterruptedError):
        step()
    with database.read() as conn:
        assert conn.execute(text("SELECT value FROM tidegate_generation")).scalar() == 1


def test_a_renewed_lease_holds(database: Database, job: JobRow) -> None:
    claimed = _claim(database, job, lease=0)
    with database.write() as conn:
        assert job_rows.renew(conn, job.id, claimed.fence, 60)
        assert job_rows.claim(conn, job.id, "w2", 60) is None


def test_abandoned_are_dead_workers_and_lost_messages(database: Database) -> None:
    lost, dead, held = (_enqueue(database, key) for key in ("lost", "dead", "held"))
    done = _enqueue(database, "done")
    _claim(database, dead, lease=0)
    _claim(database, held, lease=7200)
    finished = _claim(database, done)
    now = SYSTEM_CLOCK.now()
    with database.write() as conn:
        job_rows.finish(conn, done.id, finished.fence, True, "")
        assert [job.id for job in job_rows.abandoned(conn, now)] == [dead.id]
        assert {job.id for job in job_rows.abandoned(conn, now + OVER)} == {lost.id, dead.id}
        assert job_rows.postpone(conn, lost.id, 7200)
        assert not job_rows.postpone(conn, held.id, 0), "it is being worked on"
        assert [job.id for job in job_rows.abandoned(conn, now + OVER)] == [dead.id]
        assert len(job_rows.abandoned(conn, now + 3 * OVER, limit=2)) == 2


def test_T_H1_a_clock_that_was_set_back_frees_the_job(database: Database, job: JobRow) -> None:
    _claim(database, job, lease=60)
    earlier = SYSTEM_CLOCK.now() - timedelta(days=1)
    with database.read() as conn:
        assert [found.id for found in job_rows.abandoned(conn, earlier)] == [job.id]


def test_a_released_job_goes_to_the_next_worker_at_once(database: Database, job: JobRow) -> None:
    claimed = _claim(database, job)
    with database.write() as conn:
        assert job_rows.release(conn, job.id, claimed.fence)
        assert [found.id for found in job_rows.abandoned(conn, SYSTEM_CLOCK.now())] == [job.id]
        assert not job_rows.set_state(conn, job.id, claimed.fence, "late", ""), "given back"
    assert _claim(database, job, "w2").fence == claimed.fence + 1


def test_finished_jobs_are_forgotten_open_ones_never(database: Database, job: JobRow) -> None:
    other = _enqueue(database, "b")
    claimed = _claim(database, other)
    with database.write() as conn:
        job_rows.finish(conn, other.id, claimed.fence, True, "")
        assert job_rows.delete_finished(conn, SYSTEM_CLOCK.now() - OVER) == 0
        assert job_rows.delete_finished(conn, SYSTEM_CLOCK.now() + OVER) == 1
        assert job_rows.abandoned(conn, SYSTEM_CLOCK.now() + OVER) == [job]


def test_notes_may_hold_what_a_process_said(database: Database, job: JobRow) -> None:
    claimed = _claim(database, job)
    with database.write() as conn:
        assert job_rows.set_state(conn, job.id, claimed.fence, "failed", "\0" + "x" * 5000)


def test_a_race_for_one_job_has_one_winner(database: Database, job: JobRow) -> None:
    def claim(owner: int) -> JobRow | None:
        with database.write() as conn:
            return job_rows.claim(conn, job.id, f"w{owner}", 60)

    races = [gevent.spawn(claim, owner) for owner in range(20)]
    gevent.joinall(races, raise_error=True)
    assert len([race.value for race in races if race.value]) == 1


def test_a_race_to_enqueue_makes_one_job(database: Database) -> None:
    races = [gevent.spawn(_enqueue, database, "same") for _ in range(20)]
    gevent.joinall(races, raise_error=True)
    assert len({race.value.id for race in races}) == 1


def test_work_under_lost_leases_takes_effect_once_per_fence(database: Database) -> None:
    """Workers whose leases are over at once keep taking the job from each other."""
    job = _enqueue(database, "contested")
    effects: list[int] = []

    def work(owner: int) -> None:
        for _ in range(5):
            with database.write() as conn:
                claimed = job_rows.claim(conn, job.id, f"w{owner}", 0)
            gevent.sleep(0)
            if claimed is None:
                continue
            with database.write() as conn:
                if job_rows.set_state(conn, job.id, claimed.fence, "step", ""):
                    effects.append(claimed.fence)

    gevent.joinall([gevent.spawn(work, owner) for owner in range(8)], raise_error=True)
    assert effects == sorted(set(effects)), "a later fence is never followed by an earlier one"
