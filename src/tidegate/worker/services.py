"""What tasks work with, made at the first task: importing the application opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, final

from tidegate.installs import HostControl, JobRunner
from tidegate.settings import Settings

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
        with self._lock:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner

    def stop(self, **_: Any) -> None:
        """Called when the worker begins to stop: running jobs are given back."""
        if self._runner is not None:
            self._runner.stop()

    def _make_runner(self) -> JobRunner:
        from tidegate.jobs import Sender
        from tidegate.storage import Database
        from tidegate.storage.blobs import open_blobs

        settings = self._settings
        return JobRunner(
            settings,
            Database(settings),
            open_blobs(settings),
            self._host_of(settings),
            Sender(settings),
        )


def _linked_host(settings: Settings) -> HostControl:
    from tidegate.calls import Calls
    from tidegate.installs import LinkedHost

    return LinkedHost(Calls(settings))
