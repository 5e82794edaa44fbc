"""A heap that gives back what it was lent.

glibc takes big blocks from the system and gives them back when they are freed - until it sees one
freed; from then on blocks of up to 32 MiB come out of the heap, and what is freed there stays with
the process as soon as something small lies behind it. A role that was flooded for a minute kept
the memory of that minute for good.
"""

from __future__ import annotations

import ctypes
from typing import Final

#: From this size on a block is the system's, always. Not less: a block of the system's own costs a
#: fault per page each time, and what reads a flood takes one of 1 MiB for each reading.
BIG: Final = 4 << 20
#: What the heap keeps free at its end; giving back and taking anew costs the same faults.
_SPARE: Final = 16 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def give_back_big_blocks() -> bool:
    """Fix glibc's threshold for this process; False where the C library has none (musl).

    Called by each role before its imports, and of no effect on plugins: it is no setting that a
    child would see.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, BIG) and mallopt(_M_TRIM_THRESHOLD, _SPARE))
