"""Keeps the link to the host up, and lets calls wait for a host that is about to be back."""

from __future__ import annotations

import time
from typing import Final, final

import gevent
from gevent.event import Event

from tidegate.errors import HostLost
from tidegate.link import LinkClient
from tidegate.telemetry.logs import get_log

log = get_log("calls")

#: Seconds for which a call waits for a host that is away. A restart takes one or two, and
#: ten on a machine that has no CPU to spare; a host that was away for longer is not expected any
#: more, and calls are refused at once until it is there.
PATIENCE: Final = 15.0
#: Seconds between tries while calls may wait, and later.
_SOON: Final = 0.05
_LATER: Final = 0.5


@final
class Keeper:
    """Connects a link again whenever it is lost. One per process that calls plugins.

    Only its greenlet dials while the host is away: a thousand calls that wait cost one dial.
    """

    def __init__(self, link: LinkClient, *, patience: float = PATIENCE) -> None:
        self._link = link
        self._patience = patience
        self._greenlet: gevent.Greenlet | None = None
        self._stopping = Event()
        self._given_up = False
        self._settled = Event()

    def start(self) -> None:
        """Keep the link up from now on, so that notices arrive without a call. Idempotent."""
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._keep)

    def stop(self) -> None:
        """Stop dialling; nobody waits any longer. Idempotent."""
        self._stopping.set()
        self._settled.set()
        if self._greenlet is not None:
            self._greenlet.kill()

    def wait(self, seconds: float) -> None:
        """Return when the host is there, when it is not expected any more, or after ``seconds``."""
        until = time.monotonic() + min(seconds, self._patience)
        while self._expected() and time.monotonic() < until:
            # It may still be set from before the loss. Nothing is missed: whatever makes the host
            # there, or not expected, sets it after it has said so.
            self._settled.clear()
            self._settled.wait(until - time.monotonic())

    def _expected(self) -> bool:
        return not (
            self._greenlet is None
            or self._link.connected
            or self._given_up
            or self._stopping.is_set()
        )

    def _keep(self) -> None:
        since: float | None = None
        while not self._stopping.is_set():
            try:
                self._link.connect()
            except HostLost as error:
                log.debug("no host yet", error=str(error))
                since = since or time.monotonic()
                if not self._given_up and time.monotonic() - since >= self._patience:
                    self._given_up = True
                    self._settled.set()
                self._stopping.wait(_LATER if self._given_up else _SOON)
            else:
                since, self._given_up = None, False
                self._settled.set()
                self._link.wait_lost()
