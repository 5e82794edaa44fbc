"""Calls of plugins that are connected at another host on the same database.

A developer's connection lands on any host, and so do calls. This host asks the rows only for
plugins that it does not hold itself, at most once a second for each: they say who has the
connection and where that is. The way there is ``hosts.neighbours``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import gevent
from gevent.pool import Group

from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import CallFailed, StorageUnavailable
from tidegate.hosts.neighbours import Neighbours, check_reachable
from tidegate.ids import is_uuid
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.storage import Database, debug_sessions
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead

log = get_log("hosts")

#: Seconds for which an answer of the rows holds: a plugin is callable within one of registering.
_FRESH: Final = 0.5
_MOST: Final = 10_000


@final
class Elsewhere:
    """The way to other hosts. One per host, made by ``Debugging``; :meth:`route` never waits."""

    def __init__(self, settings: Settings, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._places: dict[tuple[str, str], tuple[float, str]] = {}
        self._neighbours = Neighbours(settings)
        self._routing = Group()

    def route(self, call: ServerCall, here: Callable[[ServerCall], None]) -> None:
        """Hand ``call`` to the host that has its plugin's connection; to ``here`` if none has.

        ``here`` also gets a call whose rows cannot be looked at: most plugins are processes, and
        those need no database.
        """
        head = call.head
        if not isinstance(head, PluginHead) or head.relayed or not is_uuid(head.tenant):
            here(call)
        else:
            routing = self._routing.spawn(self._route, call, head, here)
            # A defect of ours must not leave the caller waiting for its deadline.
            routing.link_exception(lambda failed: call.fail(_defect(failed).as_json()))

    def drain(self, grace: float) -> None:
        """Wait until nothing runs by way of here, ``grace`` seconds at most."""
        self._neighbours.drain(grace)

    def close(self) -> None:
        """Hang up on the other hosts; what still runs by way of here ends with HostLost."""
        self._routing.kill()
        self._neighbours.close()

    def _route(
        self, call: ServerCall, head: PluginHead, here: Callable[[ServerCall], None]
    ) -> None:
        try:
            address = self._address(head)
            if call.closed:
                return
            if address:
                self._neighbours.hand_on(call, address)
                return
        except StorageUnavailable as error:
            log.warning("other hosts not asked", plugin=head.plugin, error=error.message)
        except CallFailed as error:
            call.fail(error.as_json())
            return
        if not call.closed:
            here(call)

    def _address(self, head: PluginHead) -> str:
        """Blank when no other host has it. HostLost when one has that cannot be reached."""
        key = (head.tenant, head.plugin)
        looked_at, address = self._places.get(key, (0.0, ""))
        now = SYSTEM_CLOCK.monotonic()
        # Also that there is none: most calls are of plugins that nobody debugs.
        if now - looked_at < _FRESH:
            return address
        with self._database.read() as conn:
            row = debug_sessions.find_version(conn, head.tenant, head.plugin)
        address = ""
        if row is not None and row.owner != self._owner:
            address = row.address
            check_reachable(f"{head.plugin} is connected for debugging", row.owner, address)
        if len(self._places) >= _MOST:
            self._places.clear()
        self._places[key] = (now, address)
        return address


def _defect(failed: gevent.Greenlet) -> CallFailed:
    return CallFailed(f"internal error: the call was not handed on: {failed.exception!r}")
