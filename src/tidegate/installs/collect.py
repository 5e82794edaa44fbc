"""Collecting what nothing refers to any more: processes, files, packages, rows, icons (T13).

| what is left | who refers to it | what is done |
|---|---|---|
| mark among the installed packages | an installation, an open job | the version is retired |
| process or folder on the host | the same | the same |
| package of a version that was in use | the same | removed soon after its retirement |
| package that nobody ever installed | the same | removed after TIDEGATE_KEEP_UPLOADS |
| rows of a version | the same | removed |
| declaration | an installation or a package | removed |
| icon | a declaration | removed after TIDEGATE_KEEP_UPLOADS |

Whatever is uploaded or written anew while this looks is younger than its limit and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, final

from gevent.lock import BoundedSemaphore
from sqlalchemy import Connection

from tidegate.clock import SYSTEM_CLOCK
from tidegate.deadline import Deadline
from tidegate.errors import HostLost, InvalidIdentifier, TidegateError
from tidegate.ids import PluginIdentifier
from tidegate.installs import payloads
from tidegate.installs.host_control import HostControl
from tidegate.installs.shelf import Shelf
from tidegate.installs.states import InstallState
from tidegate.storage import Database, declarations, installations, references
from tidegate.storage.job_rows import JobRow
from tidegate.telemetry.logs import get_log

log = get_log("installs")

AFTER_RETIREMENT: Final = timedelta(seconds=15)
"""A package that was in use stays that long, for whoever installs it again at once."""
TRY_AGAIN: Final = timedelta(minutes=10)
"""Pause after a retirement that failed."""
_HOST_SECONDS: Final = 10.0
_PAGE: Final = 100
_TEXTS: Final = re.compile(r'"([^"\\]{1,255})"')


@final
@dataclass(slots=True)
class Collected:
    """What one round found; for the log and for tests."""

    retired: list[str]
    packages: int = 0
    rows: int = 0
    declarations: int = 0
    icons: int = 0

    def __bool__(self) -> bool:
        return bool(self.retired or self.packages or self.rows or self.declarations or self.icons)


@final
class Collector:
    """Goes through everything that is kept. One per worker process."""

    def __init__(
        self,
        database: Database,
        host: HostControl,
        shelf: Shelf,
        *,
        keep_uploads: float,
        send: Callable[[JobRow], None],
    ) -> None:
        """``send`` tells the worker of a retirement; 0 as ``keep_uploads`` is for ever."""
        self._database = database
        self._host = host
        self._shelf = shelf
        self._keep = timedelta(seconds=keep_uploads) if keep_uploads else None
        self._send = send
        self._running = BoundedSemaphore(1)

    def round(self) -> Collected:
        """Look once. At once empty while a round is on.

        Called at the worker's start and by the schedule. StorageUnavailable: the next round.
        """
        found = Collected([])
        # The schedule asks again soon; rounds that queue up would all do the work of the first.
        if not self._running.acquire(blocking=False):
            return found
        try:
            self._retire_what_is_left(found)
            self._drop_packages(found)
            self._drop_rows(found)
            self._drop_icons(found)
        finally:
            self._running.release()
        if found:
            log.info(
                "collected what nothing refers to",
                retired=found.retired,
                packages=found.packages,
                rows=found.rows,
                declarations=found.declarations,
                icons=found.icons,
            )
        return found

    # ------------------------------------------------------------------ versions

    def _retire_what_is_left(self, found: Collected) -> None:
        # Listed before the transaction of each: nothing may wait inside one. So each is looked at
        # again in it.
        for identifier in sorted({*self._shelf.marked_installed(), *self._held()}):
            if _is_identifier(identifier) and (job := self._retire(identifier)) is not None:
                found.retired.append(identifier)
                self._send(job)

    def _held(self) -> Iterator[str]:
        deadline = Deadline.after(_HOST_SECONDS, "collection")
        try:
            for one in self._host.run("held", {}, deadline):
                yield str(one.get("identifier", ""))
        # The shelf's half needs no host: what it holds is collected when it is back.
        except HostLost as error:
            log.debug("no host to collect from", error=error.message)
        except TidegateError as error:
            log.warning("host does not say what it holds", error=error.message)

    def _retire(self, identifier: str) -> JobRow | None:
        with self._database.write() as conn:
            last = payloads.last_retirement(conn, identifier)
            # A retirement that failed would be made anew every twenty seconds, with a log line and
            # a stop of the plugin each.
            if last is not None and not last.ok and _age(last.finished_at) < TRY_AGAIN:
                return None
            if _is_wanted(conn, identifier) or payloads.open_retirement(conn, identifier):
                return None
            return payloads.enqueue_retire(conn, identifier)

    # ------------------------------------------------------------------ packages

    def _drop_packages(self, found: Collected) -> None:
        for identifier, uploaded in self._shelf.packages():
            if not _is_identifier(identifier) or not self._forget(identifier, uploaded):
                continue
            # The list is as old as the round. Uploaded again since, it stays, and whoever installs
            # it declares it anew.
            if self._shelf.uploaded_at(identifier) == uploaded:
                self._shelf.drop_package(identifier)
                found.packages += 1

    def _forget(self, identifier: str, uploaded: datetime) -> bool:
        """Whether the package has to go; then its declaration is gone."""
        with self._database.write() as conn:
            if _is_wanted(conn, identifier) or not self._is_due(conn, identifier, uploaded):
                return False
            # In the transaction that decides. The package goes after the commit: killed in
            # between, the next round finds a package without a declaration, and an installation
            # makes the declaration anew from it.
            declarations.delete(conn, identifier)
            return True

    def _is_due(self, conn: Connection, identifier: str, uploaded: datetime) -> bool:
        if payloads.open_retirement(conn, identifier):
            return False
        if self._keep is not None and _age(uploaded) > self._keep:
            return True
        last = payloads.last_retirement(conn, identifier)
        return (
            last is not None
            and last.state == InstallState.ABSENT.value
            and payloads.was_installed(last)
            # Uploaded again since its retirement: somebody is about to install it.
            and uploaded < last.created_at
            and _age(last.finished_at) > AFTER_RETIREMENT
        )

    # ------------------------------------------------------------------ rows and icons

    def _drop_rows(self, found: Collected) -> None:
        with self._database.write() as conn:
            found.rows = len(references.forget_unused(conn))
        for declared in self._declarations():
            # Young ones may belong to an upload that is at work: declaration and package cannot
            # come in one step.
            if _age(declared.created_at) > TRY_AGAIN and self._undeclare(declared.identifier):
                found.declarations += 1

    def _undeclare(self, identifier: str) -> bool:
        if not _is_identifier(identifier) or self._shelf.has_package(identifier):
            return False
        with self._database.write() as conn:
            return not _is_wanted(conn, identifier) and declarations.delete(conn, identifier)

    def _drop_icons(self, found: Collected) -> None:
        if self._keep is None:
            return
        # Old ones only: an upload writes icons first and names them in a declaration later.
        unnamed = {name for name, written in self._shelf.icons() if _age(written) > self._keep}
        if not unnamed:
            return  # without one there is no reason to read every declaration
        for one in self._declarations():
            # Whatever stands in quotes anywhere counts as a name: a declaration of an older daemon
            # has icons in places that we do not know.
            unnamed.difference_update(_TEXTS.findall(one.text))
        self._shelf.drop_icons(sorted(unnamed))
        found.icons = len(unnamed)

    def _declarations(self) -> Iterator[declarations.Declaration]:
        after = ""
        while True:
            with self._database.read() as conn:
                # By pages, each in a short transaction: a reader that stays open lets SQLite's log
                # grow.
                page = declarations.page(conn, after, _PAGE)
            if not page:
                return
            yield from page
            after = page[-1].identifier


def _is_wanted(conn: Connection, identifier: str) -> bool:
    return installations.is_installed_anywhere(conn, identifier) or bool(
        payloads.open_installs(conn, identifier)
    )


def _is_identifier(text: str) -> bool:
    """Anything else in the store is not ours to judge."""
    try:
        PluginIdentifier.parse(text)
    except InvalidIdentifier:
        return False
    return True


def _age(moment: datetime | None) -> timedelta:
    return SYSTEM_CLOCK.now() - moment if moment is not None else timedelta()
