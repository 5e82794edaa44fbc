"""Jobs that nobody works on: their worker died, gave them back, or never heard of them.

A lease that is over says so on any machine, and late. On the worker's own machine its lock says
so at once (jobs/owners.py): whoever waits for an installation is not to wait for a lease of the
dead as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from tidegate.clock import SYSTEM_CLOCK
from tidegate.jobs import Owners
from tidegate.storage import Database, job_rows
from tidegate.storage.job_rows import JobRow
from tidegate.telemetry.logs import get_log

log = get_log("installs")


@final
class Abandoned:
    """Finds such jobs and sends them again. One per worker process; rounds may overlap."""

    def __init__(self, database: Database, owners: Owners, send: Callable[[JobRow], None]) -> None:
        """``send`` tells the workers of a job."""
        self._database = database
        self._owners = owners
        self._send = send

    def resume(self) -> int:
        """Send them; returns how many. Called at the worker's start and by the schedule."""
        for owner in self._owners.known():
            with self._owners.buried(owner) as dead:
                if dead:
                    self._free(owner)
        with self._database.read() as conn:
            jobs = job_rows.abandoned(conn, SYSTEM_CLOCK.now())
        for job in jobs:
            with self._database.write() as conn:
                job_rows.postpone(conn, job.id, job_rows.FIRST_LEASE)
            self._send(job)
        return len(jobs)

    def _free(self, owner: str) -> None:
        with self._database.write() as conn:
            jobs = job_rows.held_by(conn, owner)
            for job in jobs:
                job_rows.release(conn, job.id, job.fence)
        if jobs:
            log.info("worker died, its jobs go on", owner=owner, jobs=[job.id for job in jobs])
