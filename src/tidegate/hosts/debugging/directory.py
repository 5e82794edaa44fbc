"""Which debugged plugins are connected here, in memory and as rows.

A tenant's plugin may be connected more than once: after a restart whose old connection nobody
has seen end, or from two desks. The newest one gets the calls; when it goes, the one before it
gets them again. Rows follow memory: :meth:`Directory._settle` writes what is true now, whoever
came or went meanwhile, so that a late end cannot undo a newer beginning (D-66).

The newest may be at another host on the same database. Then the row is that host's, and nothing
here touches it until it is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, final

import gevent
import msgspec
from gevent.lock import BoundedSemaphore
from gevent.pool import Group

from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import RegistrationRefused, StorageUnavailable
from tidegate.hosts.debugging.admission import BUSY
from tidegate.hosts.debugging.instance import DebugInstance
from tidegate.ids import plugin_id_of
from tidegate.storage import Database, debug_sessions
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

#: Seconds between two signs of life of this host's rows.
RENEW_EVERY: Final = 60.0
#: Rows of a host that has given no sign for so long are taken back by any other.
LOST_AFTER: Final = timedelta(minutes=5)
_RETRY: Final = 2.0


@final
class Directory:
    """One per host. ``owner`` names this host in rows, ``address`` says where others reach its
    link, ``notify`` tells every peer."""

    def __init__(
        self, database: Database, owner: str, address: str, notify: Callable[[bytes], None]
    ) -> None:
        self._database = database
        self._owner = owner
        self._address = address
        self._notify = notify
        # Rows are written one after the other, or an older truth could overwrite a newer one.
        self._lock = BoundedSemaphore()
        self._seats: Counter[str] = Counter()
        self._connected: dict[tuple[str, str], list[DebugInstance]] = {}
        self._declarations: dict[str, str] = {}
        self._by_identifier: dict[str, DebugInstance] = {}
        self._retries = Group()

    def find(self, identifier: str) -> DebugInstance | None:
        """The connection that serves this version. A dictionary look-up."""
        return self._by_identifier.get(identifier)

    @property
    def instances(self) -> list[DebugInstance]:
        """Every connection, also those that get no calls."""
        return [one for stack in self._connected.values() for one in stack]

    @contextmanager
    def seat(self, tenant: str, most: int) -> Iterator[None]:
        """A place among the tenant's ``most`` connections, from the registration to the end.

        RegistrationRefused when none is left. One behind a newer connection gives way to this one,
        the others do not. Counted before anything waits: by what is connected already, as many as
        like could come at once.
        """
        if self._seats[tenant] >= most:
            behind = [one for one in self._behind(tenant) if one.usable]
            if not behind:
                raise RegistrationRefused(BUSY)
            min(behind, key=lambda one: one.load).hang_up()
        self._seats[tenant] += 1
        try:
            yield
        finally:
            self._seats[tenant] -= 1
            if not self._seats[tenant]:
                del self._seats[tenant]

    def _behind(self, tenant: str) -> list[DebugInstance]:
        stacks = [stack for (owner, _), stack in self._connected.items() if owner == tenant]
        return [one for stack in stacks for one in stack[:-1]]

    def add(self, instance: DebugInstance, declaration: str) -> None:
        """Calls go to ``instance`` from now on. StorageUnavailable when nobody can be told."""
        key = _key(instance)
        self._connected.setdefault(key, []).append(instance)
        self._declarations[instance.identifier] = declaration
        self._by_identifier[instance.identifier] = instance
        try:
            self._settle(key, instance.identifier, came=True)
        except StorageUnavailable:
            self.remove(instance)
            raise

    def remove(self, instance: DebugInstance) -> None:
        """The connection is gone. Never raises: rows that cannot be written are tried again."""
        key = _key(instance)
        stack = self._connected.get(key, [])
        if instance not in stack:
            return
        # Memory first, rows later: from here on no call goes to it, whatever the database says.
        stack.remove(instance)
        if not stack:
            del self._connected[key]
        self._unroute(instance, stack)
        self._settle_later(key, instance.identifier)

    def close(self) -> None:
        """Try nothing again: what is not written now is put back at the next start."""
        self._retries.kill()

    def sweep(self) -> None:
        """Put back what an earlier life of this host left behind. Called once, at the start."""
        with self._database.write() as conn:
            left = debug_sessions.disconnect_all(conn, self._owner)
        for row in left:
            log.info("debugged plugin of an earlier run removed", plugin=row.identifier)

    def keep_alive(self) -> None:
        """Body of a greenlet: renew own rows, take back those of hosts that are lost."""
        while True:
            gevent.sleep(RENEW_EVERY)
            try:
                self._renew()
            except StorageUnavailable as error:
                log.warning("debugging rows not renewed", error=error.message)

    def _renew(self) -> None:
        with self._database.write() as conn:
            renewed = debug_sessions.renew(conn, self._owner) if self._connected else 0
            debug_sessions.disconnect_lost(conn, SYSTEM_CLOCK.now() - LOST_AFTER)
        if renewed < len(self._connected):
            for key in list(self._connected):
                # Looked up anew: each of these waits, and whoever was connected may have left.
                stack = self._connected.get(key)
                if stack:
                    self._settle(key, stack[-1].identifier)

    def _unroute(self, instance: DebugInstance, others: list[DebugInstance]) -> None:
        """Compare and delete: another connection may have the same identifier."""
        identifier = instance.identifier
        # The same version twice, from two desks: the other one serves now.
        same = [one for one in others if one.identifier == identifier]
        if same:
            self._by_identifier[identifier] = same[-1]
        elif self._by_identifier.get(identifier) is instance:
            del self._by_identifier[identifier]
            self._declarations.pop(identifier, None)

    def _settle_later(self, key: tuple[str, str], gone: str) -> None:
        try:
            self._settle(key, gone)
        except StorageUnavailable as error:
            log.warning("debugging rows not written, trying again", error=error.message)
            again = gevent.Greenlet(self._settle_later, key, gone)
            self._retries.add(again)
            # Not at once: what is away comes back in seconds.
            again.start_later(_RETRY)

    def _settle(self, key: tuple[str, str], identifier: str, *, came: bool = False) -> None:
        """Write the rows as memory is now. ``identifier`` ``came``, or went, or was looked at."""
        tenant, _ = key
        with self._lock:
            # What is true now, not when this began to wait for its turn.
            stack = self._connected.get(key)
            with self._database.write() as conn:
                if stack:
                    newest = stack[-1].identifier
                    now = debug_sessions.connect(
                        conn,
                        tenant,
                        newest,
                        self._declarations[newest],
                        self._owner,
                        self._address,
                        take_over=came,
                    )
                else:
                    now = debug_sessions.disconnect(conn, tenant, identifier, self._owner)
        if now is not None:
            self._notify(msgspec.json.encode({"generation": now}))


def _key(instance: DebugInstance) -> tuple[str, str]:
    return instance.tenant, plugin_id_of(instance.identifier)
