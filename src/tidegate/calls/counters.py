"""Figures of all streams of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class StreamCounters:
    """Read by metrics. Plain numbers: greenlets do not switch between a look and a change."""

    opened: int = 0
    closed: int = 0
    dropped: int = 0
    spooled_bytes: int = 0
    slow: int = 0


COUNTERS: Final = StreamCounters()
