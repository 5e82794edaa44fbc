"""Back-calls of this process by type and outcome, for /metrics.

They happen in the host, which serves no /metrics: it hands this over with its figures, and the
api shows it (:data:`tidegate.telemetry.metrics.BACKCALLS`).
"""

from __future__ import annotations

from time import monotonic
from typing import Final, final

from tidegate.backcalls.kinds import KINDS

#: How a back-call ended: answered, an error to the plugin, stopped with its session, never begun.
OUTCOMES: Final = ("success", "error", "abandoned", "refused")
#: Stands for a type that is none of ours: a plugin must not be able to make series without end.
UNKNOWN: Final = "unknown"


@final
class Tally:
    """Counts. One per process (:data:`TALLY`); plain arithmetic, greenlets do not switch in it."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, float] = {}

    def refused(self, type: str) -> None:
        """The gate, or the load, let one not through."""
        # The plugin chose the word: as a label it would be a series of its own for ever.
        self._count(type if type in KINDS else UNKNOWN, "refused")

    def ended(self, type: str, outcome: str, began: float) -> None:
        """One ended as ``outcome`` that was admitted at ``began`` (monotonic seconds)."""
        self._count(type, outcome)
        self._seconds[type] = self._seconds.get(type, 0.0) + monotonic() - began

    def shown(self) -> list[dict[str, object]]:
        """A dict for each type and outcome: ``type``, ``outcome``, ``count``; and one for each
        type with its ``seconds``. JSON, for the host's figures."""
        counts: list[dict[str, object]] = [
            {"type": type, "outcome": outcome, "count": count}
            for (type, outcome), count in self._ended.items()
        ]
        return [*counts, *({"type": name, "seconds": s} for name, s in self._seconds.items())]

    def _count(self, type: str, outcome: str) -> None:
        key = (type, outcome)
        self._ended[key] = self._ended.get(key, 0) + 1


TALLY: Final = Tally()
