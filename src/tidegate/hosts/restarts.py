"""How soon a plugin that died may be started again.

A death counts when the process lived less than a minute and brought no session to its end. After
the first such death it is started again at once, then after 0.5 s, 1 s, 2 s …; after five in a
row it is quarantined for a while, and each death after that quarantines it again.
"""

from __future__ import annotations

from typing import Final, final

from tidegate.clock import SYSTEM_CLOCK, Clock, doubled
from tidegate.errors import PluginQuarantined

# Pauses in seconds, doubled from the one to the other: what crashes at its start must not use up a
# core, and what waits for a server is back half a minute after it.
_FIRST: Final = 0.5
_LONGEST: Final = 30.0
_BUDGET: Final = 5
_STABLE: Final = 60.0


@final
class Restarts:
    """The record of one plugin's deaths. Owned by its supervisor."""

    def __init__(self, quarantine: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._quarantine = quarantine
        self._clock = clock
        self._streak = 0
        self._not_before = 0.0
        self._until = 0.0
        self.deaths = 0

    def died(self, *, ready: bool, lived: float, served: int) -> None:
        """A process ended by itself after ``lived`` seconds and ``served`` sessions, or a start
        came to nothing (``ready`` is False)."""
        self.deaths += 1
        # One that works for a while and then dies is a bug of one call: the others start it again.
        if ready and (served or lived > _STABLE):
            self._streak = 0
            self._not_before = 0.0
            return
        self._streak += 1
        now = self._clock.monotonic()
        # The first death may be chance, and somebody waits.
        if self._streak > 1:
            self._not_before = now + doubled(_FIRST, self._streak - 2, _LONGEST)
        if self._streak >= _BUDGET:
            self._until = now + self._quarantine

    def forgive(self) -> None:
        """Start it again at once: a person asked for it, or it was built anew."""
        self._streak = 0
        self._not_before = self._until = 0.0

    @property
    def wait(self) -> float:
        """Seconds until it may be started."""
        return max(0.0, self._not_before - self._clock.monotonic())

    @property
    def quarantined_until(self) -> float | None:
        """Unix seconds until which it stays stopped; None when it may be started."""
        left = self._until - self._clock.monotonic()
        # Counted on the monotonic clock and told on the wall's: a jump of the one moves no
        # quarantine.
        return self._clock.now().timestamp() + left if left > 0 else None

    def error(self, plugin: str, reason: str) -> PluginQuarantined | None:
        """What a call gets while the plugin is quarantined; None when it is not."""
        until = self.quarantined_until
        if until is None:
            return None
        left = until - self._clock.now().timestamp()
        return PluginQuarantined(
            f"no available node: {plugin} died {self._streak} times in a row and starts again "
            f"in {left:.0f} s (or by a restart). Last: {reason}",
            until=int(until),
        )
