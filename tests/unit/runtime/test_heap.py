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


def resident(whose: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", FLOOD, whose], capture_output=True, text=True, timeout=60
    )
    if "no glibc" in ran.stderr:
        pytest.skip("only glibc has this threshold")
    return int(ran.stdout)


def test_big_blocks_go_back_to_the_system():
    assert resident("ours") < 0.7 * resident("glibc's own")
