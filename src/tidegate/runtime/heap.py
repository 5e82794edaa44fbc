"""A heap that gives back what it was lent.

glibc takes big blocks from the system and gives them back when they are freed - until it sees one
freed; from then on blocks of up to 32 MiB come out of the heap, and what is freed there stays with
the process as soon as something small lies behind it. A role that was flooded for a minute kept
the memory of that minute for good. What lies free between small blocks it gives back only when it
is told to: a role that works for hours would grow by some 5 MB.
"""

from __future__ import annotations

import ctypes
from typing import Final, final

from tidegate.clock import SYSTEM_CLOCK, Clock

#: From this size on a block is the system's, always. Not less: a block of the system's own costs a
#: fault per page each time, and what reads a flood takes one of 1 MiB for each reading.
BIG: Final = 4 << 20
#: What the heap keeps free at its end; giving back and taking anew costs the same faults.
_SPARE: Final = 16 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Seconds between two trims of a role at rest. One costs 0.1 ms, and 0.1 more per MB that goes.
_PAUSE: Final = 60.0
_libc: Final = ctypes.CDLL(None)


def give_back_big_blocks() -> bool:
    """Fix glibc's threshold for this process; False where the C library has none (musl).

    Called by each role before its imports, and of no effect on plugins: it is no setting that a
    child would see.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, BIG) and mallopt(_M_TRIM_THRESHOLD, _SPARE))


def trim() -> None:
    """Give back what is free in the heap, wherever it lies. Nothing where there is no glibc."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


@final
class Rest:
    """When to trim: a role that has nothing to do asks, and is told once a minute."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._trimmed_at = clock.monotonic()

    def due(self) -> bool:
        """Whether to trim now; then not again for a minute."""
        now = self._clock.monotonic()
        if now - self._trimmed_at < _PAUSE:
            return False
        self._trimmed_at = now
        return True
