"""Calls of plugins that are connected at another host on the same database.

    caller --link--> this host --link--> the host that has the developer's connection
                        |
                        +-- its row says who that is, and where

A developer's connection lands on any host, and so do calls. This host asks the rows only for
plugins that it does not hold itself, at most once a second for each, and hands a call on once:
the other one serves it or refuses it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import gevent
import msgspec
from gevent.event import Event
from gevent.pool import Group

from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import CallFailed, HostLost, StorageUnavailable
from tidegate.ids import is_uuid
from tidegate.link import ClientCall, LinkClient, ServerCall, wait_writable
from tidegate.runtime import home
from tidegate.settings import Settings
from tidegate.storage import Database, debug_sessions
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead

log = get_log("hosts")

#: Seconds for which an answer of the rows holds: a plugin is callable within one of registering.
_FRESH: Final = 0.5
_MOST: Final = 10_000
_ANYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - what is compared, not bound


def owner_of(settings: Settings) -> str:
    """How rows name the host of this data folder: the same after a restart."""
    return f"{socket.gethostname()}:{settings.home.root}"[-255:]


def address_of(settings: Settings) -> str:
    """Where other hosts reach the link of this one.

    Without a link over the network that is the unix socket, for hosts on the same machine.
    """
    host, _, port = settings.tidegate_link_tcp.rpartition(":")
    if settings.tidegate_link_advertise:
        return settings.tidegate_link_advertise
    if host in ("", "localhost", "127.0.0.1", "[::1]"):
        return str(home.link_socket(settings))
    return f"{socket.gethostname()}:{port}" if host.strip("[]") in _ANYWHERE else f"{host}:{port}"


@final
class Elsewhere:
    """The way to other hosts. One per host, made by ``Debugging``; :meth:`route` never waits."""

    def __init__(self, settings: Settings, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._key = home.link_key(settings)
        self._places: dict[tuple[str, str], tuple[float, str]] = {}
        self._clients: dict[str, LinkClient] = {}
        self._routing = Group()
        self._relays: set[Relay] = set()
        self._idle = Event()

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
        if self._relays:
            self._idle.clear()
            self._idle.wait(grace)

    def close(self) -> None:
        """Hang up on the other hosts; what still runs by way of here ends with HostLost."""
        self._routing.kill()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _route(
        self, call: ServerCall, head: PluginHead, here: Callable[[ServerCall], None]
    ) -> None:
        try:
            address = self._address(head)
            if call.closed:
                return
            if address:
                relay = Relay(call, self._over)
                self._relays.add(relay)
                relay.begin(self._client(address), head)
                return
        except StorageUnavailable as error:
            log.warning("other hosts not asked", plugin=head.plugin, error=error.message)
        except CallFailed as error:
            call.fail(error.as_json())
            return
        if not call.closed:
            here(call)

    def _over(self, relay: Relay) -> None:
        self._relays.discard(relay)
        if not self._relays:
            self._idle.set()

    def _address(self, head: PluginHead) -> str:
        """Blank when no other host has it. HostLost when one has that cannot be reached."""
        key = (head.tenant, head.plugin)
        looked_at, address = self._places.get(key, (0.0, ""))
        now = SYSTEM_CLOCK.monotonic()
        if now - looked_at < _FRESH:
            return address
        with self._database.read() as conn:
            row = debug_sessions.find_version(conn, head.tenant, head.plugin)
        address = ""
        if row is not None and row.owner != self._owner:
            address = row.address
            machine = row.owner.partition(":")[0]
            if not address or (address.startswith("/") and machine != socket.gethostname()):
                raise HostLost(
                    f"{head.plugin} is connected for debugging at another host ({machine}) that "
                    "has no link over the network: set TIDEGATE_LINK_TCP there"
                )
        if len(self._places) >= _MOST:
            self._places.clear()
        self._places[key] = (now, address)
        return address

    def _client(self, address: str) -> LinkClient:
        known = self._clients.get(address)
        if known is None:
            place = Path(address) if address.startswith("/") else address
            # Its notices are not passed on: two hosts that know each other would never stop.
            known = LinkClient(place, key=self._key, on_notice=lambda body: None)
            self._clients[address] = known
        return known


def _defect(failed: gevent.Greenlet) -> CallFailed:
    return CallFailed(f"internal error: the call was not handed on: {failed.exception!r}")


@final
class Relay:
    """One call on its way through this host: a ``link.Sink`` of the call to the other one.

    ``on_over`` hears once that it is over, whoever ended it.
    """

    __slots__ = ("_call", "_error", "_other")

    def __init__(self, call: ServerCall, on_over: Callable[[Relay], None]) -> None:
        self._call = call
        call.on_over = lambda _: on_over(self)
        self._error = b""
        self._other: ClientCall | None = None

    def begin(self, client: LinkClient, head: PluginHead) -> None:
        """Open it there. May wait for the connection; HostLost when there is none."""
        self._call.on_cancel = self._cancel
        passed_on = msgspec.structs.replace(head, relayed=True)
        self._other = client.open(passed_on, self._call.payload, self)
        self._call.payload = b""
        if self._call.closed:
            self._other.cancel()

    def push(self, body: bytes) -> None:
        """Chunks: on to the caller.

        While the caller's connection is full but moving this waits a moment, as a plugin's reader
        does: it holds the other host back, instead of piling up here what cannot go on.
        """
        self._call.send(body)
        wait_writable((self._call,))

    def fail(self, error: bytes) -> None:
        """Its error; ``finish`` follows."""
        self._error = error

    def finish(self) -> None:
        """Its end, or that of the other host."""
        if self._error:
            self._call.fail(self._error)
        else:
            self._call.finish()

    def _cancel(self) -> None:
        if self._other is not None:
            self._other.cancel()
