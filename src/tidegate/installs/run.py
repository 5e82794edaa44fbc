"""One claimed job: its fence, its lease, its steps.

Every step is one transaction that moves the job's row and whatever belongs to the step; it is
rolled back when the fence is stale. So a worker that was thought dead changes nothing, and one
that is killed leaves the last whole step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

from gevent.event import Event
from sqlalchemy import Connection

from tidegate.errors import JobGivenBack, JobTaken
from tidegate.installs.background import Background
from tidegate.installs.states import InstallState, check
from tidegate.storage import Database, job_rows
from tidegate.storage.job_rows import JobRow
from tidegate.telemetry.logs import get_log

log = get_log("installs")

LEASE: Final = 12.0
"""Seconds without a sign of life after which a job is somebody else's."""

RENEW: Final = 3.0
"""Seconds between two signs of life."""

FailPoint = Callable[[InstallState, bool], None]
"""Called with each step inside its transaction (False) and after it (True); fault tests."""


def no_fail_point(_state: InstallState, _committed: bool) -> None:
    """What production does at a fail point."""


@final
class Run:
    """One try at a job, from its claim to its end. Made by the runner."""

    def __init__(
        self,
        database: Database,
        job: JobRow,
        *,
        stopping: Event,
        fail_point: FailPoint = no_fail_point,
    ) -> None:
        self.database = database
        self.job = job
        self.state = InstallState.of(job.state)
        self._stopping = stopping
        self._fail_point = fail_point
        self._renewed = time.monotonic()

    @contextmanager
    def step(self, state: InstallState, note: str = "") -> Iterator[Connection]:
        """The transaction that moves the job to ``state``; the body adds what belongs to it.

        JobTaken when the fence is stale. The body must not wait.
        """
        check(self.state, state)
        with self.database.write() as conn:
            # First in the transaction: it locks the job's row, so that a stale worker's body never
            # runs.
            if not job_rows.set_state(conn, self.job.id, self.job.fence, state.value, note):
                raise self._taken()
            yield conn
            # Where production does nothing: fault tests kill the process here, with the
            # transaction open.
            self._fail_point(state, False)
        self._moved(state, note)

    @contextmanager
    def last_step(self, state: InstallState, note: str = "") -> Iterator[Connection]:
        """:meth:`step` that also closes the job; it did well unless ``state`` is *failed*."""
        with self.step(state, note) as conn:
            yield conn
            ok = state is not InstallState.FAILED
            if not job_rows.finish(conn, self.job.id, self.job.fence, ok, note):
                raise self._taken()

    def sign_of_life(self) -> None:
        """Renew the lease when it is time. Called at least every second while something is waited
        for; JobTaken when the job is somebody else's, JobGivenBack when this worker stops.
        """
        # Given back, not left to its lease: the next worker goes on at once instead of twelve
        # seconds later.
        if self._stopping.is_set():
            with self.database.write() as conn:
                job_rows.release(conn, self.job.id, self.job.fence)
            raise JobGivenBack("the worker stops", job=self.job.id)
        # Four tries within one lease: a database that is slow for a moment does not cost the job.
        if time.monotonic() - self._renewed < RENEW:
            return
        with self.database.write() as conn:
            if not job_rows.renew(conn, self.job.id, self.job.fence, LEASE):
                raise self._taken()
        self._renewed = time.monotonic()

    def wait_for(self, work: Callable[[], None]) -> None:
        """Until ``work`` ended, with signs of life; killed when the job is not ours any more."""
        running = Background(work)
        try:
            while not running.over(1.0):
                self.sign_of_life()
            running.result()
        finally:
            running.kill()

    def _moved(self, state: InstallState, note: str) -> None:
        log.info(
            "installation moved",
            job=self.job.id,
            kind=self.job.kind,
            key=self.job.key,
            before=self.state.value,
            after=state.value,
            note=note,
        )
        self.state = state
        self._fail_point(state, True)

    def _taken(self) -> JobTaken:
        return JobTaken(f"job {self.job.id} is somebody else's now", job=self.job.id)
