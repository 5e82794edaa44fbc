"""Running jobs: what the worker's tasks do, and nothing else does."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, final

from gevent.event import Event
from sqlalchemy import Connection

from tidegate.clock import SYSTEM_CLOCK, doubled
from tidegate.errors import BrokerUnavailable, JobGivenBack, JobTaken, StorageUnavailable
from tidegate.installs import payloads
from tidegate.installs.abandoned import Abandoned
from tidegate.installs.builds import Builds
from tidegate.installs.collect import Collected, Collector
from tidegate.installs.host_control import HostControl, announce
from tidegate.installs.install_job import InstallJob
from tidegate.installs.reconcile import Reconciler
from tidegate.installs.retire_job import RetireJob
from tidegate.installs.run import LEASE, FailPoint, Run, no_fail_point
from tidegate.installs.shelf import Shelf
from tidegate.installs.uploads import Uploads
from tidegate.jobs import INSTALLS, RUN_JOB, UPKEEP, JobSender, Owners
from tidegate.settings import Settings
from tidegate.storage import Database, install_tasks, job_rows
from tidegate.storage.blobs import BlobStore
from tidegate.storage.job_rows import JobRow
from tidegate.telemetry.logs import get_log

log = get_log("installs")

MAX_TRIES: Final = 5
"""Times that an installation may be begun; after that it takes its worker down each time."""

_PAUSE: Final = 1.0
"""Seconds before a try that failed for want of the database is made again."""

KEEP_TASKS: Final = timedelta(seconds=120)
"""How long a task stays visible after its last plugin was installed (02 section 5, D-15)."""

KEEP_JOBS: Final = timedelta(hours=24)
LOST_AFTER: Final = timedelta(seconds=60)
"""Age of a running task from which on a plugin without a job is one that nobody installs."""

_LOST: Final = "interrupted: nothing works on this installation any more; install it again"


def send_job(sender: JobSender, job: JobRow) -> None:
    """Tell the worker of a job that was committed. Never raises: the schedule looks as well."""
    # Draining an old version takes minutes and must not stand before an installation that a person
    # waits for.
    queue = UPKEEP if job.kind == payloads.RETIRE else INSTALLS
    try:
        sender.send(RUN_JOB, job.id, queue=queue)
    except BrokerUnavailable as error:
        log.warning("job waits for the schedule", job=job.id, error=error.message)


@final
class JobRunner:
    """Runs jobs by their ids, any number at once. One per worker process."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        host: HostControl,
        sender: JobSender,
        owners: Owners,
        *,
        fail_point: FailPoint = no_fail_point,
    ) -> None:
        """``owners``: where this process's life shows, so that its jobs are free at its death."""
        self._settings = settings
        self._database = database
        self._host = host
        self._sender = sender
        self._fail_point = fail_point
        self._shelf = Shelf(settings, blobs)
        self._uploads = Uploads(settings, database, self._shelf, self._announce)
        self._builds = Builds(host, 60.0 * settings.plugin_install_timeout)
        self._owners = owners
        self._abandoned = Abandoned(database, owners, lambda job: send_job(sender, job))
        self._stopping = Event()
        self._reconciler = Reconciler(
            database,
            host,
            self._shelf,
            self._uploads,
            seconds=60.0 * settings.plugin_install_timeout,
            stopping=self._stopping,
        )

        self._collector = Collector(
            database,
            host,
            self._shelf,
            keep_uploads=settings.tidegate_keep_uploads,
            send=lambda job: send_job(sender, job),
        )

    def run(self, job_id: str) -> None:
        """Carry one job out, unless it is finished or somebody holds it. Called by the task."""
        job = self._claim(job_id)
        if job is None:
            log.debug("job finished or held", job=job_id)
            return
        work = self._work(job)
        try:
            self._carry_out(job, work)
        # Neither is an error: the job goes on somewhere else.
        except (JobTaken, JobGivenBack) as error:
            log.info("job left", job=job_id, reason=error.message)
        except StorageUnavailable as error:
            log.warning("job is begun again soon", job=job_id, error=error.message)
            self._give_back(job)
        if work.retired is not None:
            send_job(self._sender, work.retired)

    def stop(self) -> None:
        """The worker stops: running jobs are given back within a second."""
        self._stopping.set()

    def resume_abandoned(self) -> int:
        """Send the jobs again that nobody works on; returns how many.

        Called at the worker's start and by the schedule.
        """
        return self._abandoned.resume()

    def reconcile(self) -> int:
        """Have the host build what is installed and not built there; how many were built.

        Called at the worker's start and by the schedule; may take long, and one call at a time
        does the work.
        """
        return self._reconciler.round()

    def collect(self) -> Collected:
        """Take away what nothing refers to any more. Called at the start and by the schedule."""
        try:
            return self._collector.round()
        except StorageUnavailable as error:
            log.info("collecting ends early", reason=error.message)
            return Collected([])

    def clean(self) -> None:
        """Forget what is over, and say so where nothing happens. Called by the schedule."""
        now = SYSTEM_CLOCK.now()
        with self._database.write() as conn:
            install_tasks.delete_succeeded(conn, now - KEEP_TASKS)
            job_rows.delete_finished(conn, now - KEEP_JOBS)
        with self._database.read() as conn:
            running = install_tasks.unfinished(conn, 1000)
        for task in running:
            if task.created_at < now - LOST_AFTER:
                self._fail_lost_entries(task)

    def _claim(self, job_id: str) -> JobRow | None:
        """The job, now ours. A message is given once: a database that is away for a moment is
        waited for, else the job would wait for the schedule.
        """
        owner = f"{socket.gethostname()}:{os.getpid()}:{self._owners.hold()}"
        return self._patiently(lambda conn: job_rows.claim(conn, job_id, owner, LEASE))

    def _give_back(self, job: JobRow) -> None:
        """Begin a job again that the database or the blob store broke off.

        The pause doubles with each try, so that a few tries outlast a failure of a minute; after
        the lease nobody needs us to give it back, the schedule finds it.
        """
        self._stopping.wait(doubled(_PAUSE, job.fence - 1, LEASE / 2))
        with suppress(StorageUnavailable):
            if self._patiently(lambda conn: job_rows.release(conn, job.id, job.fence)):
                send_job(self._sender, job)

    def _patiently[T](self, change: Callable[[Connection], T]) -> T:
        """One transaction, again while the database is away: as long as a lease, or until the
        worker stops.
        """
        ends_at = time.monotonic() + LEASE
        while True:
            try:
                with self._database.write() as conn:
                    return change(conn)
            except StorageUnavailable:
                if time.monotonic() > ends_at or self._stopping.wait(_PAUSE):
                    raise

    def _carry_out(self, job: JobRow, work: InstallJob | RetireJob) -> None:
        try:
            # Fences count claims. A retirement is never given up: what it would leave behind stays
            # on the disk.
            if job.fence > MAX_TRIES and job.kind != payloads.RETIRE:
                work.give_up(_TooManyTries(f"begun {MAX_TRIES} times and never ended"))
            else:
                work.carry_out()
        except (JobTaken, JobGivenBack, StorageUnavailable):
            raise
        except Exception as error:  # the task's border: whoever waits is told
            log.exception("job broke", job=job.id, kind=job.kind, key=job.key)
            work.give_up(error)

    def _work(self, job: JobRow) -> InstallJob | RetireJob:
        run = Run(self._database, job, stopping=self._stopping, fail_point=self._fail_point)
        if job.kind == payloads.RETIRE:
            drain = float(self._settings.plugin_max_execution_timeout)
            return RetireJob(run, self._host, self._shelf, drain_seconds=drain)
        return InstallJob(
            run,
            self._host,
            self._builds,
            self._shelf,
            self._uploads,
            runtime_type=self._settings.platform,
        )

    def _announce(self, generation: int) -> None:
        announce(self._host, generation)

    def _fail_lost_entries(self, task: install_tasks.Task) -> None:
        for entry in task.plugins:
            if entry.status in install_tasks.OPEN:
                with self._database.write() as conn:
                    self._fail_if_lost(conn, task, entry.identifier)

    def _fail_if_lost(self, conn: Connection, task: install_tasks.Task, identifier: str) -> None:
        if payloads.install_job_of(conn, task.id, identifier) is not None:
            return
        # Its job may have ended since the task was listed, in one transaction with the entry. Read
        # after the job, the entry is as that left it: a success is not told as a failure.
        now = install_tasks.get(conn, task.tenant, task.id)
        entry = now.entry(identifier) if now is not None else None
        if entry is not None and entry.status in install_tasks.OPEN:
            install_tasks.set_entry(
                conn, task.id, identifier, status=install_tasks.FAILED, message=_LOST
            )


class _TooManyTries(Exception):
    """An installation that never ends is ended."""
