"""A broker for tests of installations: jobs run in this process, or wait to be run.

sender = InProcessSender()
installer = Installer(settings, database, blobs, sender)
sender.runner = JobRunner(settings, database, blobs, host, sender, owners)
installer.install(...); sender.join()
"""

from __future__ import annotations

from typing import Any, final

import gevent

from tidegate.errors import BrokerUnavailable
from tidegate.installs import JobRunner
from tidegate.jobs import INSTALLS


@final
class InProcessSender:
    """Follows ``tidegate.jobs.JobSender``. Without a runner it only records."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Any, ...], str]] = []
        self.runner: JobRunner | None = None
        self.broken = False
        self._running: list[gevent.Greenlet] = []

    def send(self, task_name: str, *args: Any, queue: str = INSTALLS) -> None:
        """Record the message, and run the job when there is a runner."""
        # As a broker that is away: nothing is recorded, the job's row is all that is left.
        if self.broken:
            raise BrokerUnavailable("the broker is switched off by the test")
        self.sent.append((task_name, args, queue))
        if self.runner is not None:
            self._running.append(gevent.spawn(self.runner.run, *args))

    def join(self, seconds: float = 20.0) -> None:
        """Until every job that was sent is over, those that jobs sent among them."""
        limit = gevent.Timeout(seconds, TimeoutError(f"jobs still run after {seconds:g} s"))
        with limit:
            # Again and again: a job may send others.
            while self._running:
                self._running.pop(0).join()
