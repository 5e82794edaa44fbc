"""The two limits that travel with a call: its deadline and its byte budget.

Both are values. A deadline is set once, at the door, and inherited by everything done for the
call; the error that it causes says who set it (docs/adr/004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from tidegate.clock import SYSTEM_CLOCK, Clock
from tidegate.errors import DeadlineExceeded


@final
@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock after which a call must not run.

    ``owner`` names who set it (``caller``, a setting's name, ``manifest``), ``seconds`` is the
    whole length it was given: both are shown in the error.
    """

    expires_at: float
    seconds: float
    owner: str

    @classmethod
    def after(cls, seconds: float, owner: str, clock: Clock = SYSTEM_CLOCK) -> Deadline:
        """A deadline ``seconds`` from now."""
        return cls(clock.monotonic() + seconds, seconds, owner)

    def remaining(self, clock: Clock = SYSTEM_CLOCK) -> float:
        """Seconds left; never below zero."""
        return max(0.0, self.expires_at - clock.monotonic())

    def expired(self, clock: Clock = SYSTEM_CLOCK) -> bool:
        """Whether the time is over."""
        return clock.monotonic() >= self.expires_at

    def error(self) -> DeadlineExceeded:
        """The error for a call that ran into it. Keeps the words that Dify greps for."""
        return DeadlineExceeded(
            f"killed by timeout: the call took longer than {self.seconds:g} s ({self.owner})",
            # The whole length, not what is left: what the caller asked for is what he can change.
            seconds=self.seconds,
            owner=self.owner,
        )


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """How many bytes may wait for a slow consumer: ``memory`` first, then ``spool`` on disk."""

    memory: int
    spool: int = 0
