"""Wrong keys: whoever guesses waits, twice as long with each further guess (T-S10).

Counted per key that is asked for and address (of IPv6: network), in this process. The first tries
are free: people mistype. While an address is blocked its guesses are not even compared, so that
trying fast brings nothing; an address that has shown the right key goes on with it - a proxy or
container network makes many callers look like one, and a stranger must not lock out Dify.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from tidegate.addresses import network_of
from tidegate.clock import SYSTEM_CLOCK, Clock, doubled

FREE: Final = 10
"""Wrong keys from one address that cost nothing."""
FIRST: Final = 1.0
LONGEST: Final = 900.0
_FORGET: Final = 3600.0
_ADDRESSES: Final = 10_000
"""Addresses remembered; the one that was heard of longest ago is forgotten first."""


@final
class _Record:
    __slots__ = ("last", "tries", "trusted", "until")

    def __init__(self) -> None:
        self.tries = 0
        self.until = 0.0
        self.last = 0.0
        self.trusted = False


@final
class Guesses:
    """The record of wrong keys. One per key of a process; every method is quick."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def blocked(self, address: str) -> float:
        """Seconds for which a key from there is refused unseen; 0 when it may be compared."""
        record = self._records.get(network_of(address))
        # Behind a proxy Dify and a stranger have one address. Blocking it would stop Dify;
        # guessing at full speed brings nothing against a generated key.
        if record is None or record.trusted:
            return 0.0
        return max(0.0, record.until - self._clock.monotonic())

    def failed(self, address: str) -> float:
        """A wrong key came from there; the seconds for which the address is blocked now."""
        record, now = self._record(address), self._clock.monotonic()
        if now - record.last > _FORGET:
            record.tries = 0
        record.tries, record.last = record.tries + 1, now
        if record.tries < FREE:
            return 0.0
        pause = doubled(FIRST, record.tries - FREE, LONGEST)
        record.until = now + pause
        return pause

    def succeeded(self, address: str) -> None:
        """The right key came from there. Called for each request."""
        record = self._records.get(network_of(address))
        # On the hot path of every request: nothing is written where nothing changes.
        if record is None or not record.trusted or record.tries:
            record = self._record(address)
            record.trusted, record.tries, record.until = True, 0, 0.0

    def _record(self, address: str) -> _Record:
        address = network_of(address)
        record = self._records.get(address)
        if record is None:
            record = self._records[address] = _Record()
            # An attacker with many addresses (IPv6) must not fill the memory. Whoever is pushed
            # out by that begins with free tries again, which costs less than a process that dies.
            while len(self._records) > _ADDRESSES:
                self._records.popitem(last=False)
        self._records.move_to_end(address)
        return record
