"""One build per version in this process, however many jobs wait for it.

A job joins the build of its identifier, or starts it; the last one that leaves before the end
stops it. The host makes the builds of several workers one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import gevent
from gevent.event import Event

from tidegate.deadline import Deadline
from tidegate.errors import HostLost, InstallFailed, TidegateError
from tidegate.installs.host_control import HostControl
from tidegate.installs.states import InstallState
from tidegate.telemetry.logs import get_log

log = get_log("installs")

_STATES = {
    "unpack": InstallState.RESOLVING,
    "environment": InstallState.BUILDING,
    "start": InstallState.PROBING,
    "ready": InstallState.PROBING,
}
"""The host's steps, as states of the installation."""

_FAILED = "failed to launch plugin"
_PAUSES = (0.2, 0.5, 1.0)
"""Seconds between tries to reach a host that is not there; the last one repeats."""


@final
class Build:
    """The host at work on one identifier. Read by any number of jobs."""

    def __init__(self, host: HostControl, identifier: str, deadline: Deadline) -> None:
        self.identifier = identifier
        self.step = InstallState.RESOLVING
        self.message = "starting"
        self.failure: TidegateError | None = None
        self.users = 0
        self._host = host
        self._deadline = deadline
        self._done = Event()
        self._greenlet = gevent.spawn(self._run)

    def wait(self, seconds: float) -> bool:
        """Whether it ended, waiting up to ``seconds`` for that."""
        return bool(self._done.wait(seconds))

    def result(self) -> None:
        """After the end: InstallFailed with the reason when it failed."""
        if self.failure is not None:
            reason = reason_of(self.failure)
            # The host's own error may begin with these words, and Dify shows them to a person.
            raise InstallFailed(f"{_FAILED}: {reason.removeprefix(_FAILED + ': ')}")

    def stop(self) -> None:
        """Nobody waits any more: the host's work is cancelled."""
        self._greenlet.kill()

    def _run(self) -> None:
        try:
            self._until_host_answers()
        except TidegateError as error:
            self.failure = error
        except Exception as error:  # the supervisor of this build: its jobs must hear of it
            log.exception("build broke", plugin=self.identifier)
            self.failure = InstallFailed(f"{type(error).__name__}: {error}")
        finally:
            self._done.set()

    def _until_host_answers(self) -> None:
        tries = 0
        while True:
            try:
                self._once()
            except HostLost as error:
                # A host that restarts in the middle costs the build nothing but time; the limit is
                # that of the installation.
                if self._deadline.expired():
                    raise
                self.message = "waiting for the host: it is not running"
                log.info("host away, build waits", plugin=self.identifier, error=error.message)
                gevent.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
            else:
                return

    def _once(self) -> None:
        params = {"identifier": self.identifier}
        for progress in self._host.run("install", params, self._deadline):
            self._note(str(progress.get("step", "")), str(progress.get("message", "")))

    def _note(self, step: str, message: str) -> None:
        # Hosts of other versions may have more steps: an unknown one is progress within the one
        # before.
        self.step = _STATES.get(step, self.step)
        self.message = message or step


@final
class Builds:
    """The builds that run in this process. One per worker."""

    def __init__(self, host: HostControl, seconds: float) -> None:
        """``seconds``: how long one build may take (PLUGIN_INSTALL_TIMEOUT)."""
        self._host = host
        self._seconds = seconds
        self._running: dict[str, Build] = {}

    @contextmanager
    def join(self, identifier: str) -> Iterator[Build]:
        """The build of ``identifier``, started when there is none. Called by install jobs."""
        build = self._running.get(identifier)
        # No switch between the look and the entry: two jobs cannot both start one.
        if build is None:
            deadline = Deadline.after(self._seconds, "PLUGIN_INSTALL_TIMEOUT")
            build = self._running[identifier] = Build(self._host, identifier, deadline)
        build.users += 1
        try:
            yield build
        finally:
            build.users -= 1
            if build.users == 0:
                # A job that joined after the failure has put a new build in its place.
                if self._running.get(identifier) is build:
                    del self._running[identifier]
                build.stop()


def reason_of(error: TidegateError) -> str:
    """The error in words for the task, with the end of the plugin's stderr when there is one."""
    tail = str(error.details.get("stderr") or "").strip()
    if tail and tail not in error.message:
        return f"{error.message}\n{tail}"
    return error.message
