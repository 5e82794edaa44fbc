"""Who may connect for debugging: caps that hold, and patience that ends with wrong keys.

The SDK tries again every five seconds for ever, also with a wrong key. So a key that was refused
is remembered for a moment, and an address that guesses keys is not listened to any more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, final

from tidegate.addresses import network_of
from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import RegistrationRefused

BUSY: Final = "server is busy now, please try again later"
_REMEMBERED: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take before it is a plugin; seconds and counts."""

    handshake: float = 10.0
    registration: float = 60.0
    drain: float = 3.0
    connections: int = 256
    per_tenant: int = 5
    #: Connections of one address that have shown no good key yet.
    strangers: int = 16
    #: Wrong keys of one address per minute; a forgotten SDK sends twelve.
    wrong_keys: int = 30
    #: How long a key that was refused is refused without being looked up.
    key_memory: float = 5.0


@final
class Visit:
    """One connection of a stranger, until it has shown a good key."""

    def __init__(self, strangers: Counter[str], address: str) -> None:
        self.address = address
        self._strangers = strangers
        self._known = False
        strangers[address] += 1

    def known(self) -> None:
        """It has shown a good key, or is gone. Idempotent."""
        if self._known:
            return
        self._known = True
        self._strangers[self.address] -= 1
        if self._strangers[self.address] <= 0:
            del self._strangers[self.address]


@final
class Admission:
    """Counts the connections of one listener. Nothing here waits."""

    def __init__(self, limits: Limits, now: Callable[[], float] = SYSTEM_CLOCK.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._connections = 0
        self._strangers: Counter[str] = Counter()
        self._wrong: dict[str, deque[float]] = {}
        self._refused_keys: dict[str, float] = {}

    @property
    def connections(self) -> int:
        """Connections that are open, registered or not."""
        return self._connections

    @contextmanager
    def connection(self, address: str) -> Iterator[Visit]:
        """One connection from accept to close. RegistrationRefused over a cap."""
        limits, address = self._limits, network_of(address)
        if self._connections >= limits.connections or self._strangers[address] >= limits.strangers:
            raise RegistrationRefused(BUSY)
        self._connections += 1
        visit = Visit(self._strangers, address)
        try:
            yield visit
        finally:
            visit.known()
            self._connections -= 1

    def check_key(self, address: str, key: str) -> None:
        """RegistrationRefused when this key, or any key of this address, is not worth a look."""
        wrong = self._recent(network_of(address))
        if len(wrong) >= self._limits.wrong_keys:
            wait = max(1, round(wrong[0] + 60.0 - self._now()))
            raise RegistrationRefused(
                f"handshake failed, too many invalid keys from {address}, "
                f"try again in {wait} seconds"
            )
        if self._refused_keys.get(key, 0.0) > self._now():
            self.key_refused(address, key)

    def key_refused(self, address: str, key: str) -> NoReturn:
        """The key is nobody's: remember that, and always raise the RegistrationRefused."""
        if len(self._wrong) >= _REMEMBERED or len(self._refused_keys) >= _REMEMBERED:
            self._wrong.clear()
            self._refused_keys.clear()
        self._wrong.setdefault(network_of(address), deque(maxlen=self._limits.wrong_keys)).append(
            self._now()
        )
        self._refused_keys[key] = self._now() + self._limits.key_memory
        raise RegistrationRefused("handshake failed, invalid key")

    def _recent(self, address: str) -> deque[float]:
        wrong = self._wrong.get(address, deque())
        while wrong and wrong[0] < self._now() - 60.0:
            wrong.popleft()
        return wrong
