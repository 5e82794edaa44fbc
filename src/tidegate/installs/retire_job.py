"""Retiring a version that nobody uses any more: drained, stopped, removed, marker taken away.

It runs behind an uninstall (which answers at once, D-16), behind the last upgrade away from a
version and behind an installation that failed (D-69). Whoever installs the version again takes
the retirement back before it begins, or waits for its end.
"""

from __future__ import annotations

from typing import Final, final

import gevent
import msgspec

from tidegate.deadline import Deadline
from tidegate.errors import (
    HostLost,
    JobGivenBack,
    JobTaken,
    StorageUnavailable,
    TidegateError,
)
from tidegate.installs import payloads
from tidegate.installs.builds import reason_of
from tidegate.installs.host_control import HostControl
from tidegate.installs.payloads import RetirePayload
from tidegate.installs.run import Run
from tidegate.installs.shelf import Shelf
from tidegate.installs.states import InstallState
from tidegate.storage import installations, job_rows
from tidegate.telemetry.logs import get_log

log = get_log("installs")

_S = InstallState
SETTLE: Final = 1.5
"""Seconds until every process knows that the version is not used: none calls it any more."""

_MARGIN: Final = 60.0
"""Seconds for stopping and removing, beyond what running calls may take."""

_HOST_PAUSE: Final = 1.0
"""Seconds between tries to reach a host that is not there."""


@final
class RetireJob:
    """Carries one claimed retirement to its end. Used once, by one greenlet."""

    def __init__(self, run: Run, host: HostControl, shelf: Shelf, *, drain_seconds: float) -> None:
        """``drain_seconds``: how long running calls of the version may take to end."""
        self._run = run
        self._host = host
        self._shelf = shelf
        self._drain_seconds = drain_seconds
        self._identifier = msgspec.json.decode(run.job.payload, type=RetirePayload).identifier
        self.retired: job_rows.JobRow | None = None

    def carry_out(self) -> None:
        """To the end: absent, or still in use. Passes on what InstallJob.carry_out passes on."""
        # Between the uninstall and now somebody may have installed it again.
        if self._is_used():
            with self._run.last_step(_S.INSTALLED, "in use"):
                pass
            return
        try:
            # In a greenlet of its own: draining takes as long as calls run, and the lease has to
            # be renewed meanwhile.
            self._run.wait_for(self._clear)
        except (JobTaken, JobGivenBack, StorageUnavailable):
            raise
        except TidegateError as error:
            self._fail(reason_of(error))
            return
        with self._run.last_step(_S.ABSENT):
            pass

    def give_up(self, error: Exception) -> None:
        """End as failed for a reason that nobody foresaw. Called by the runner."""
        self._fail(f"internal error: {type(error).__name__}: {error}")

    def _is_used(self) -> bool:
        """Asked in the step that claims the removal: an installation sees it, or is seen."""
        with self._run.step(_S.REMOVING) as conn:
            return installations.is_installed_anywhere(conn, self._identifier) or bool(
                payloads.open_installs(conn, self._identifier)
            )

    def _clear(self) -> None:
        # Processes that have not heard yet would call a plugin that is being stopped.
        gevent.sleep(SETTLE)
        self._ask("stop")
        self._ask("remove")
        # Last: while the mark is there, a round of the collector finds this again if we die in the
        # middle.
        self._shelf.unmark_installed(self._identifier)

    def _ask(self, op: str) -> None:
        while True:
            deadline = Deadline.after(self._drain_seconds + _MARGIN, "retirement")
            try:
                for _ in self._host.run(op, {"identifier": self._identifier}, deadline):
                    pass
            except HostLost as error:
                log.info("host away, retirement waits", plugin=self._identifier, error=str(error))
                gevent.sleep(_HOST_PAUSE)
            else:
                return

    def _fail(self, reason: str) -> None:
        log.warning("retirement failed", plugin=self._identifier, reason=reason)
        with self._run.last_step(_S.FAILED, reason):
            pass
