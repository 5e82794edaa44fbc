"""A clock in the test's hand, for everything that takes a ``Clock``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import final


@final
class HandClock:
    """Stands still until the test moves it; wall time and monotonic time move apart at a jump."""

    def __init__(self) -> None:
        self._monotonic = 1000.0
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        """As :class:`tidegate.clock.Clock` says."""
        return self._monotonic

    def now(self) -> datetime:
        """As :class:`tidegate.clock.Clock` says."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Both go on."""
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        """Somebody set the wall clock; nothing else happened."""
        self._now += timedelta(seconds=seconds)
