"""How long tests wait: for a promise of the product, and for what sends no event.

    assert time.monotonic() - began < patience(1.0)

On a machine that is free a promise is the promise itself, and a test that holds there shows it.
Where twenty processes want two cores, each gets a tenth of one: a bound that knew nothing of them
would measure the neighbours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def patience(seconds: float) -> float:
    """``seconds`` of a machine to ourselves; asked for when they are over."""
    average, _, _, counts, _ = Path("/proc/loadavg").read_text(encoding="ascii").split()
    wanting = max(float(average), float(counts.split("/")[0]))
    return seconds * max(1.0, wanting / len(os.sched_getaffinity(0)))


def wait_until[T](probe: Callable[[], T], seconds: float = 60.0) -> T:
    """Ask until the answer is true, and return it; the test fails when that takes too long."""
    ends_at = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < ends_at, f"not within {seconds:g} s: {probe}"
        time.sleep(0.01)
    return found
