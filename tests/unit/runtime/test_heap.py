"""What a flood took from the system goes back to it."""

import subprocess
import sys

import pytest

#: Big blocks come and go, and something small is kept each time: the pattern of a busy role.
FLOOD = """
import os, sys
from tidegate.runtime.heap import BIG, give_back_big_blocks

if sys.argv[1] == "ours" and not give_back_big_blocks():
    sys.exit("no glibc")
block = bytes(30 << 20)
del block
kept = []
for turn in range(200):
    blocks = [bytes(BIG + size * (turn % 7)) for size in range(0, 2 << 20, 256 << 10)]
    kept.append([os.urandom(2000) for _ in range(3)])
    del blocks
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


#: Blocks of a stream's size come and go, one in fifty stays: what is free lies between them.
LEFTOVERS = """
import os, sys
from tidegate.runtime.heap import trim

blocks = [os.urandom(size % 20_000 + 600) for size in range(0, 3_000_000, 1000)]
kept = blocks[::50]
del blocks
if sys.argv[1] == "ours":
    trim()
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


def resident(whose: str, what: str = FLOOD) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", what, whose], capture_output=True, text=True, timeout=60
    )
    if "no glibc" in ran.stderr:
        pytest.skip("only glibc has this threshold")
    return int(ran.stdout)


def test_big_blocks_go_back_to_the_system():
    assert resident("ours") < 0.7 * resident("glibc's own")


def test_what_is_free_between_small_blocks_goes_back_when_it_is_asked_for():
    spared = resident("glibc's own", LEFTOVERS) - resident("ours", LEFTOVERS)
    assert spared > 10 << 20
