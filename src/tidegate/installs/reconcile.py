"""Making a host fit for what is installed: after a take-over, on a new machine, on an empty disk.

What nothing refers to any more is the other half, and stands in ``collect``.

Rows say what is installed; a host builds what it lacks when a call asks for it. This does the
same in the background, one version after the other, so that the first call need not wait - and
one at a time, so that a called plugin finds a free place to be built. What a row promises and
an older daemon lost is mended on the way: the declaration, and the mark among the installed
packages. A version that cannot be built is tried again ever more rarely.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, final

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from tidegate.clock import doubled
from tidegate.deadline import Deadline
from tidegate.errors import HostLost, StorageUnavailable, TidegateError
from tidegate.installs import payloads
from tidegate.installs.background import Background
from tidegate.installs.builds import reason_of
from tidegate.installs.host_control import HostControl
from tidegate.installs.shelf import Shelf
from tidegate.installs.uploads import Uploads
from tidegate.storage import Database, installations
from tidegate.telemetry.logs import get_log

log = get_log("installs")

_PAGE: Final = 100
_FIRST_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0


@final
class Reconciler:
    """Goes through the installed versions. One per worker process."""

    def __init__(
        self,
        database: Database,
        host: HostControl,
        shelf: Shelf,
        uploads: Uploads,
        *,
        seconds: float,
        stopping: Event,
    ) -> None:
        """``seconds``: how long one build may take; ``stopping``: the worker stops."""
        self._database = database
        self._host = host
        self._shelf = shelf
        self._uploads = uploads
        self._seconds = seconds
        self._stopping = stopping
        self._running = BoundedSemaphore(1)
        self._whole: set[str] = set()
        self._failures: dict[str, tuple[int, float]] = {}

    def round(self) -> int:
        """Go through all of them once; how many were built. At once 0 while a round is on.

        Called at the worker's start and by the schedule. Ends early when there is no host, no
        storage, or the worker stops: the next round goes on.
        """
        if not self._running.acquire(blocking=False):
            return 0
        try:
            return sum(self._fit(identifier) for identifier in self._due())
        except (HostLost, StorageUnavailable) as error:
            log.info("reconciling ends early", reason=error.message)
            return 0
        finally:
            self._running.release()

    def _due(self) -> Iterator[str]:
        after = ""
        installed: set[str] = set()
        while not self._stopping.is_set():
            with self._database.read() as conn:
                page = installations.installed_identifiers(conn, after, _PAGE)
            if not page:
                self._forget_all_but(installed)
                return
            after = page[-1]
            installed.update(page)
            for identifier in page:
                pause_ends = self._failures.get(identifier, (0, 0.0))[1]
                if time.monotonic() >= pause_ends and not self._stopping.is_set():
                    yield identifier

    def _forget_all_but(self, installed: set[str]) -> None:
        """What is gone is looked at anew should it come back, and takes no room until then."""
        self._whole &= installed
        self._failures = {
            identifier: failure
            for identifier, failure in self._failures.items()
            if identifier in installed
        }

    def _fit(self, identifier: str) -> bool:
        try:
            self._mend(identifier)
            built = self._prepare(identifier)
        except (HostLost, StorageUnavailable):
            raise
        except TidegateError as error:
            self._postpone(identifier, reason_of(error))
            return False
        self._failures.pop(identifier, None)
        if built:
            log.info("environment built in the background", plugin=identifier)
            self._retire_if_unused(identifier)
        return built

    def _mend(self, identifier: str) -> None:
        """What the database and the store have to have. Looked at once per process."""
        if identifier not in self._whole:
            self._uploads.declared(identifier)
            self._shelf.mark_installed(identifier)
            self._whole.add(identifier)

    def _prepare(self, identifier: str) -> bool:
        work = Background(lambda: self._ask(identifier))
        try:
            while not (over := work.over(0.5)) and not self._stopping.is_set():
                pass
            return over and work.result()
        finally:
            work.kill()

    def _ask(self, identifier: str) -> bool:
        deadline = Deadline.after(self._seconds, "PLUGIN_INSTALL_TIMEOUT")
        answer: dict[str, object] = {}
        for answer in self._host.run("prepare", {"identifier": identifier}, deadline):
            log.debug("building in the background", plugin=identifier, progress=answer)
        return bool(answer.get("built"))

    def _postpone(self, identifier: str, reason: str) -> None:
        tries = self._failures.get(identifier, (0, 0.0))[0]
        pause = doubled(_FIRST_PAUSE, tries, _LONGEST_PAUSE)
        self._failures[identifier] = (tries + 1, time.monotonic() + pause)
        log.warning(
            "environment not built", plugin=identifier, reason=reason, tried=tries + 1, pause=pause
        )

    def _retire_if_unused(self, identifier: str) -> None:
        """It was uninstalled meanwhile: what was built goes again."""
        with self._database.write() as conn:
            used = installations.is_installed_anywhere(conn, identifier)
            if not used and not payloads.open_installs(conn, identifier):
                payloads.enqueue_retire(conn, identifier)
