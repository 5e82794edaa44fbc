"""Jobs as rows: each takes effect once, whatever the broker delivers (contract.md section 5).

A job is open until it is finished; while open, there is one per (kind, key). Whoever works on it
holds a lease and a *fence*: a number that grows with each claim. Every change names its fence and
is refused when a later claim has happened, so a worker that was thought dead changes nothing.

    enqueue -> claim -> set_state* (with renew in between) -> finish
                  ^______ lease over: abandoned() finds it, the next claim goes on

Leases are wall time in milliseconds, two numbers: a lease that begins in the future was written
before the clock was set back, and counts as over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import row_id
from tidegate.storage.columns import row_key
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.messages import shortened
from tidegate.storage.tables import jobs as table

FIRST_LEASE = 10.0
"""Seconds that the broker has to deliver a new job before it counts as abandoned."""
SKEW = 60.0
"""Seconds by which a lease may begin in the future: the clocks of two machines differ."""


@final
@dataclass(frozen=True, slots=True)
class JobRow:
    """One job. ``payload`` is JSON text that only its kind understands; ``ok`` once finished."""

    id: str
    kind: str
    key: str
    payload: str
    state: str
    note: str
    fence: int
    owner: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    ok: bool | None


def enqueue(conn: Connection, kind: str, key: str, payload: str) -> JobRow:
    """A new open job, or the one that is open for this kind and key already.

    Send its id to the worker after the transaction; if that is lost, the schedule finds it.
    """
    now, millis = _now()
    values = {
        "id": str(row_id()),
        "created_at": now,
        "updated_at": now,
        "kind": kind,
        "key": key,
        "payload": payload,
        "state": "",
        "note": "",
        "fence": 0,
        "lease_from": millis,
        "lease_until": millis + int(FIRST_LEASE * 1000),
    }
    while True:
        # A partial unique index over open jobs decides.
        insert_or_skip(conn, table, values)
        job = open_job(conn, kind, key)
        if job is not None:  # else it was finished between our two statements
            return job


def open_job(conn: Connection, kind: str, key: str) -> JobRow | None:
    """The open job of this kind and key."""
    mine = (table.c.kind == kind, table.c.key == key, _is_open())
    return _first(conn, select(table).where(*mine))


def get(conn: Connection, job_id: str) -> JobRow | None:
    """One job, open or finished."""
    return _first(conn, select(table).where(table.c.id == row_key(job_id)))


def claim(conn: Connection, job_id: str, owner: str, lease_seconds: float) -> JobRow | None:
    """Take an open job that nobody holds; the row has the new fence.

    None when it is finished, or held: a second delivery of the message ends right there.
    """
    now, millis = _now()
    free = or_(table.c.owner.is_(None), _lease_over(millis))
    # Counted in the database, not read and written back: two workers would get the same fence.
    statement = (
        update(table)
        .where(table.c.id == row_key(job_id), _is_open(), free)
        .values(
            fence=table.c.fence + 1, owner=owner, updated_at=now, **_lease(millis, lease_seconds)
        )
    )
    return _first(conn, statement.returning(table))


def renew(conn: Connection, job_id: str, fence: int, lease_seconds: float) -> bool:
    """Hold the job for longer; False when the fence is stale: stop working at once."""
    _, millis = _now()
    return _change(conn, job_id, fence, **_lease(millis, lease_seconds))


def set_state(conn: Connection, job_id: str, fence: int, state: str, note: str) -> bool:
    """Record a step, in the transaction of the step itself; False when the fence is stale.

    On False roll the transaction back: somebody else does the work now.
    """
    return _change(conn, job_id, fence, state=state, note=shortened(note))


def finish(conn: Connection, job_id: str, fence: int, ok: bool, note: str) -> bool:
    """Close the job; False when the fence is stale (then as for :func:`set_state`)."""
    now, _ = _now()
    return _change(conn, job_id, fence, finished_at=now, ok=ok, note=shortened(note), owner=None)


def release(conn: Connection, job_id: str, fence: int) -> bool:
    """Give an unfinished job back, for a worker that stops or died; abandoned from now on."""
    _, millis = _now()
    return _change(conn, job_id, fence, owner=None, lease_from=millis, lease_until=millis)


def postpone(conn: Connection, job_id: str, seconds: float) -> bool:
    """The message of an unclaimed job was sent once more: give the broker time again."""
    _, millis = _now()
    statement = (
        update(table)
        .where(table.c.id == row_key(job_id), _is_open(), table.c.owner.is_(None))
        .values(**_lease(millis, seconds))
    )
    return conn.execute(statement).rowcount > 0


def abandoned(conn: Connection, now: datetime, limit: int = 256) -> list[JobRow]:
    """Open jobs whose lease is over, oldest first: worker dead, or message lost."""
    statement = (
        select(table)
        .where(_is_open(), _lease_over(_millis(now)))
        .order_by(table.c.created_at, table.c.id)
        .limit(limit)
    )
    return [_job(row) for row in conn.execute(statement)]


def held_by(conn: Connection, owner: str) -> list[JobRow]:
    """Open jobs of an owner whose name ends with ``:owner``, whatever their lease."""
    mine = table.c.owner.endswith(f":{owner}", autoescape=True)
    return [_job(row) for row in conn.execute(select(table).where(_is_open(), mine))]


def last_finished(conn: Connection, kind: str, key: str) -> JobRow | None:
    """The job of this kind and key that was finished last, as long as it is remembered."""
    mine = (table.c.kind == kind, table.c.key == key, table.c.finished_at.is_not(None))
    return _first(conn, select(table).where(*mine).order_by(table.c.finished_at.desc()).limit(1))


def open_below(conn: Connection, kind: str, prefix: str, limit: int = 256) -> list[JobRow]:
    """Open jobs of a kind whose key begins with ``prefix``, oldest first."""
    mine = (table.c.kind == kind, table.c.key.startswith(prefix, autoescape=True), _is_open())
    statement = select(table).where(*mine).order_by(table.c.created_at, table.c.id).limit(limit)
    return [_job(row) for row in conn.execute(statement)]


def delete_finished(conn: Connection, before: datetime) -> int:
    """Forget jobs that were finished before that time; how many. Called by the schedule."""
    return conn.execute(delete_from(table).where(table.c.finished_at <= before)).rowcount


# --------------------------------------------------------------------------- rows


def _now() -> tuple[datetime, int]:
    now = SYSTEM_CLOCK.now()
    return now, _millis(now)


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _lease(millis: int, seconds: float) -> dict[str, int]:
    return {"lease_from": millis, "lease_until": millis + int(seconds * 1000)}


def _is_open() -> ColumnElement[bool]:
    return table.c.finished_at.is_(None)


def _lease_over(millis: int) -> ColumnElement[bool]:
    return or_(table.c.lease_until <= millis, table.c.lease_from > millis + int(SKEW * 1000))


def _change(conn: Connection, job_id: str, fence: int, **values: Any) -> bool:
    values.setdefault("updated_at", _now()[0])
    held = and_(table.c.id == row_key(job_id), table.c.fence == fence, table.c.owner.is_not(None))
    return conn.execute(update(table).where(held, _is_open()).values(**values)).rowcount > 0


def _first(conn: Connection, statement: Any) -> JobRow | None:
    row = conn.execute(statement).first()
    return _job(row) if row is not None else None


def _job(row: Row[Any]) -> JobRow:
    return JobRow(
        id=row.id,
        kind=row.kind,
        key=row.key,
        payload=row.payload,
        state=row.state,
        note=row.note,
        fence=row.fence,
        owner=row.owner,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        ok=row.ok,
    )
