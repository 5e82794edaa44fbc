"""Calls that another host on the same database must serve: the way there, and the way back.

    caller --link--> this host --link--> the host that has what the call is about

An api process is connected to one host, whichever that is. What belongs to another one (a
developer's connection, the session of a function) is handed on once: that host serves the call or
refuses it, it never hands it on again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import msgspec
from gevent.event import Event

from tidegate.errors import HostLost
from tidegate.link import ClientCall, LinkClient, ServerCall, wait_writable
from tidegate.runtime import home
from tidegate.settings import Settings

_ONLY_HERE: Final = ("", "localhost", "127.0.0.1", "::1")
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what is compared, not bound


def owner_of(settings: Settings) -> str:
    """How others know the host of this data folder: the same after a restart."""
    return f"{socket.gethostname()}:{settings.home.root}"[-255:]


def address_of(settings: Settings) -> str:
    """Where other hosts reach the link of this one.

    Without a link over the network that is the unix socket, for hosts on the same machine.
    """
    if settings.tidegate_link_advertise:
        return settings.tidegate_link_advertise
    listens = settings.tidegate_link_tcp
    host, _, port = listens.rpartition(":")
    host = host.strip("[]")
    if host in _ONLY_HERE:
        return str(home.link_socket(settings))
    return f"{socket.gethostname()}:{port}" if host in _ANYWHERE else listens


def check_reachable(what: str, owner: str, address: str) -> None:
    """HostLost when ``owner`` gives no address that this machine could reach."""
    machine = owner.partition(":")[0]
    # A unix socket of another machine may have the very path of one that is here.
    if not address or (address.startswith("/") and machine != socket.gethostname()):
        raise HostLost(
            f"{what} at another host ({machine}) that has no link over the network: "
            "set TIDEGATE_LINK_TCP there"
        )


@final
class Neighbours:
    """Links to other hosts, made when they are needed, and the calls that run over them."""

    def __init__(self, settings: Settings) -> None:
        self._key = home.link_key(settings)
        self._clients: dict[str, LinkClient] = {}
        self._relays: set[Relay] = set()
        self._idle = Event()

    def hand_on(self, call: ServerCall, address: str) -> Relay:
        """Let the host at ``address`` serve ``call``. May wait; HostLost when it is not there."""
        relay = Relay(call, self._over)
        self._relays.add(relay)
        relay.begin(self._client(address))
        return relay

    def drain(self, grace: float) -> None:
        """Wait until nothing runs by way of here, ``grace`` seconds at most."""
        if self._relays:
            self._idle.clear()
            self._idle.wait(grace)

    def close(self) -> None:
        """Hang up on the other hosts; what still runs by way of here ends with HostLost."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _over(self, relay: Relay) -> None:
        self._relays.discard(relay)
        if not self._relays:
            self._idle.set()

    def _client(self, address: str) -> LinkClient:
        known = self._clients.get(address)
        if known is None:
            place = Path(address) if address.startswith("/") else address
            # Its notices are not passed on: two hosts that know each other would never stop.
            known = LinkClient(place, key=self._key, on_notice=lambda body: None)
            self._clients[address] = known
        return known


@final
class Relay:
    """One call on its way through this host: a ``link.Sink`` of the call to the other one.

    ``on_over`` hears once that it is over, whoever ended it.
    """

    __slots__ = ("_call", "_error", "_on_over", "_other", "_over")

    def __init__(self, call: ServerCall, on_over: Callable[[Relay], None]) -> None:
        self._call = call
        self._on_over = on_over
        self._over = Event()
        call.on_over = self._ended
        self._error = b""
        self._other: ClientCall | None = None

    def begin(self, client: LinkClient) -> None:
        """Open it there. May wait for the connection; HostLost when there is none."""
        self._call.on_cancel = self._cancel
        passed_on = msgspec.structs.replace(self._call.head, relayed=True)
        self._other = client.open(passed_on, self._call.payload, self)
        self._call.payload = b""
        if self._call.closed:
            self._other.cancel()

    def wait(self) -> None:
        """Until it is over."""
        self._over.wait()

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

    def _ended(self, call: ServerCall) -> None:
        self._over.set()
        self._on_over(self)

    def _cancel(self) -> None:
        if self._other is not None:
            self._other.cancel()
