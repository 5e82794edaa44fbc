"""How long a promise of the product may take here and now: longer, as far as others use the cores.

    assert time.monotonic() - began < patience(1.0)

On a machine that is free this is the promise itself, and a test that holds there shows it. Where
twenty processes want two cores, each gets a tenth of one: a bound that knew nothing of them would
measure the neighbours.
"""

from __future__ import annotations

import os
from pathlib import Path


def patience(seconds: float) -> float:
    """``seconds`` of a machine to ourselves; asked for when they are over."""
    average, _, _, counts, _ = Path("/proc/loadavg").read_text(encoding="ascii").split()
    wanting = max(float(average), float(counts.split("/")[0]))
    return seconds * max(1.0, wanting / len(os.sched_getaffinity(0)))
