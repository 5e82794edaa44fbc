"""Ticks of the schedule: each goes out once, however many beats there are (R17).

A beat sends an entry only when it could claim the tick; another one that is there by mistake, or
as a spare, finds the tick taken and idles. When the first one dies, the spare's next tick goes
through. A tick may be late, it is never doubled.
"""

from __future__ import annotations

from sqlalchemy import Connection, or_, update

from tidegate.clock import SYSTEM_CLOCK, Clock
from tidegate.storage.dialects import insert_or_skip
from tidegate.storage.tables import ticks as table

SLACK = 0.1
"""Share of the interval by which a tick may be early: a beat's own steps are not exact."""


def claim(conn: Connection, name: str, every: float, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Whether the caller is the one to send the tick of ``name`` now; ``every`` is in seconds.

    A tick that seems to lie in the future was written before the clock was set back: it does not
    count. Called by beat, in a transaction of its own.
    """
    now = int(clock.now().timestamp() * 1000)
    if insert_or_skip(conn, table, {"id": name, "at": now}):
        return True
    due = table.c.at <= now - int(every * (1 - SLACK) * 1000)
    # By more than one interval: clocks of two machines differ by less.
    ahead = table.c.at > now + int(every * 1000)
    free = (table.c.id == name, or_(due, ahead))
    return conn.execute(update(table).where(*free).values(at=now)).rowcount > 0
