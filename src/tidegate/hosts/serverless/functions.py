"""Which function runs a version, and what its manifest permits: rows, remembered for a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import msgspec

from tidegate.backcalls import Caller
from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import PluginStartFailed, StorageUnavailable
from tidegate.hosts.waiting import NOT_FOUND
from tidegate.ids import PluginIdentifier
from tidegate.storage import Database, declarations, serverless_runtimes
from tidegate.telemetry.logs import get_log
from tidegate.wire.connector import Function

log = get_log("hosts")

#: A switched endpoint holds everywhere within this time.
FRESH: Final = 1.0
_MOST: Final = 10_000


@final
@dataclass(slots=True)
class Known:
    """A version's function and the one back-call account of all its calls here."""

    function: Function
    caller: Caller
    looked_at: float
    served: int = 0


@final
class Functions:
    """One per host."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, Known] = {}

    @property
    def known(self) -> Mapping[str, Known]:
        """By identifier: what was called or installed since the host started."""
        return self._known

    def get(self, identifier: str) -> Known:
        """The function of a version. PluginStartFailed when it has none.

        May ask the database; when that does not answer, what is known is good enough.
        """
        known = self._known.get(identifier)
        if known is not None and SYSTEM_CLOCK.monotonic() - known.looked_at < FRESH:
            return known
        try:
            return self._look(identifier, known)
        except StorageUnavailable as error:
            if known is None:
                raise PluginStartFailed(f"{NOT_FOUND}: {error.message}") from None
            log.warning("function not looked up", plugin=identifier, error=error.message)
            return known

    def put(self, identifier: PluginIdentifier, function: Function) -> None:
        """It was launched. StorageUnavailable when that cannot be kept."""
        with self._database.write() as conn:
            serverless_runtimes.put(conn, identifier, function.url, function.name)
        self.forget(str(identifier))

    def forget(self, identifier: str) -> None:
        """Look at the rows at the next call."""
        known = self._known.get(identifier)
        if known is not None:
            # Stale, not forgotten: its calls go on by what is known when the rows cannot be read.
            known.looked_at = -FRESH

    def drop(self, identifier: str) -> None:
        """The version is not used any more."""
        self._known.pop(identifier, None)

    def is_verified(self, identifier: str) -> bool:
        """Whether the version was uploaded with a signature that is trusted."""
        return bool(self._declared(identifier).get("verified"))

    def _look(self, identifier: str, known: Known | None) -> Known:
        with self._database.read() as conn:
            row = serverless_runtimes.find(conn, identifier)
        if row is None:
            self.drop(identifier)
            raise PluginStartFailed(
                f"{NOT_FOUND}: plugin serverless runtime not found: {identifier}"
            )
        function = Function(row.url, row.name)
        if known is None:
            # All at once: what is in use is back with its next call.
            if len(self._known) >= _MOST:
                self._known.clear()
            permission = (self._declared(identifier).get("resource") or {}).get("permission") or {}
            known = Known(function, Caller(identifier, permission), 0.0)
            self._known[identifier] = known
        # In place: running back-calls count in its one account.
        known.function = function
        known.looked_at = SYSTEM_CLOCK.monotonic()
        return known

    def _declared(self, identifier: str) -> dict[str, Any]:
        with self._database.read() as conn:
            found = declarations.get(conn, identifier)
        declared: dict[str, Any] = msgspec.json.decode(found.text) if found is not None else {}
        return declared
