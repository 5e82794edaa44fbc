"""What tasks work with, made at the first task: importing the application opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, final

import gevent

from tidegate.installs import HostControl, JobRunner
from tidegate.jobs import stop_waiting
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.sharing import Sharing
from tidegate.telemetry.snapshots import FOLDER

log = get_log("worker")

HostOf = Callable[[Settings], HostControl]
"""How the worker reaches the host; tests bring their own."""


@final
class Services:
    """The rooms below the tasks, once per worker process."""

    def __init__(self, settings: Settings, host_of: HostOf | None = None) -> None:
        self._settings = settings
        self._host_of = host_of or _linked_host
        self._lock = threading.Lock()
        self._runner: JobRunner | None = None

    @property
    def runner(self) -> JobRunner:
        """The runner of jobs. Called by every task, from any greenlet."""
        # The first tasks come at once, and making the runner waits (imports, files): two would
        # each run a collector and a reconciler.
        with self._lock:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner

    def begin(self, **_: Any) -> None:
        """Called when the worker is ready, behind its back: jobs that nobody works on go on, and
        what this machine lacks is built.

        From now on api sees what is counted here (installations).
        """
        if self._settings.prometheus_enabled:
            Sharing(self._settings.home.run / FOLDER, "worker").start()
        gevent.spawn(self._take_up)

    def stop(self, **_: Any) -> None:
        """Called when the worker begins to stop: running jobs are given back."""
        # First, and without waiting: this runs in a signal's handler.
        stop_waiting()
        if self._runner is not None:
            self._runner.stop()

    def _take_up(self) -> None:
        try:
            self.runner.resume_abandoned()
            # Before building: what is going away anyway must not be built first.
            self.runner.collect()
            self.runner.reconcile()
        except Exception:  # the greenlet's border; the schedule tries again
            log.exception("taking up what was left broke")

    def _make_runner(self) -> JobRunner:
        from tidegate.jobs import Owners, Sender
        from tidegate.storage import Database
        from tidegate.storage.blobs import open_blobs

        settings = self._settings
        return JobRunner(
            settings,
            Database(settings),
            open_blobs(settings),
            self._host_of(settings),
            Sender(settings),
            Owners(settings.home.run / "workers"),
        )


def _linked_host(settings: Settings) -> HostControl:
    from tidegate.calls import Calls
    from tidegate.installs import LinkedHost

    return LinkedHost(Calls(settings))
