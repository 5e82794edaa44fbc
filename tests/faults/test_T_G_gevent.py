"""gevent underneath: what is imported before the patch, what blocks the hub, in which order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.stack import running_stack

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.limit(240, "starts interpreters and whole pytest runs"),
    pytest.mark.blocks_hub("starts processes"),
]

#: Bound before the patch, these would be the blocking originals for ever.
EARLY = ("ssl", "queue", "concurrent.futures", "psycopg2", "grpc", "urllib3", "sqlalchemy")
SEEN = f"import sys; print(sorted(set({EARLY!r}) & set(sys.modules)))"


def python(code: str, *, module: str = "") -> str:
    patched = ["-m", "gevent.monkey", "--module", module] if module else ["-c"]
    done = subprocess.run(
        [sys.executable, *patched, *([] if module else [code])],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --------------------------------------------------------------------------- T-G1


@pytest.mark.parametrize(
    "way", ["tidegate.cli", "tidegate.runtime.launcher", "tidegate.runtime.boot", "tidegate.errors"]
)
def test_T_G1_the_way_to_a_role_imports_nothing_that_the_patch_has_to_reach(way):
    assert python(f"import {way}\n{SEEN}") == "[]"


def test_T_G1_every_role_says_that_it_was_patched_as_a_whole(tmp_path):
    said: list[str] = []

    def all_said() -> bool:
        said[:] = re.findall(r'\{"event": "fingerprint".*?\}', stack.log.read_text())
        return len(said) == 4

    with running_stack(tmp_path / "home") as stack:
        wait_until(all_said)
    for line in said:
        for part in ("socket", "ssl", "threading", "subprocess", "select", "queue", "time"):
            assert f'"{part}"' in line, line


# --------------------------------------------------------------------------- T-G2

REPORT = "TIDEGATE_TEST_REPORT"
BLOCKING = """
import time
import gevent

def _burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def test_short():
    gevent.spawn(_burn, 0.01).join()

def test_long():
    gevent.spawn(_burn, 0.12).join()
"""


def run_pytest(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    # What this run reports is its caller's business, not part of the suite's own report; and in a
    # soak what it runs are still the short tests.
    left_out = (REPORT, "TIDEGATE_TEST_SOAK")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", *arguments],
        cwd=ROOT,
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_T_G2_a_greenlet_that_blocks_the_hub_fails_its_test(tmp_path):
    """The detector of tests/conftest.py watches the whole suite; here it is shown to bite."""
    path = tmp_path / "test_blocking.py"
    path.write_text(BLOCKING)
    done = run_pytest("-p", "tests.conftest", "--rootdir", str(ROOT), str(path))
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "ERROR ::test_long" in done.stdout
    assert re.search(r"the hub was blocked for 1\d\d ms of CPU", done.stdout)


# --------------------------------------------------------------------------- T-G3

PLAIN = """
import sys
import tidegate.wire, tidegate.wire.sessions, tidegate.packages
print(sorted({"gevent", "socket", "subprocess"} & set(sys.modules)))
"""


def test_T_G3_the_codecs_need_neither_gevent_nor_sockets():
    """tests/run.py runs wire/ and packages/ plain as well, as a lane of its own."""
    assert "gevent" not in python(PLAIN)


# --------------------------------------------------------------------------- T-G4

SUBSET = ("tests/unit/link", "tests/unit/calls/test_stream.py", "tests/unit/hosts/test_waiting.py")


@pytest.mark.stretched
@pytest.mark.parametrize("seed", range(20) if os.environ.get("TIDEGATE_TEST_SOAK") else (1, 2))
def test_T_G4_switches_at_other_points_bring_no_order_bug(seed):
    fuzzer = ("-p", "tests.faults.switching", "-p", "no:randomly")
    done = run_pytest(*fuzzer, *SUBSET, TIDEGATE_TEST_SWITCHES=str(seed))
    assert done.returncode == 0, f"seed {seed}\n{done.stdout[-4000:]}"
    switches = re.search(r"switches: (\d+)", done.stdout)
    assert switches is not None
    assert int(switches[1]) > 100


# --------------------------------------------------------------------------- T-G5

FORKED = """
from gevent import monkey; monkey.patch_all()
import os, sys, gevent, socket
from gevent.event import Event

done = Event()
ticker = gevent.spawn(lambda: [gevent.sleep(0.01) for _ in range(20)])
gevent.sleep(0.02)
pid = os.fork()
if pid == 0:
    left, right = socket.socketpair()
    reader = gevent.spawn(lambda: right.recv(5))
    gevent.spawn_later(0.02, left.sendall, b"alive")
    got = reader.get(timeout=5)
    number = gevent.get_hub().threadpool.apply(lambda: 6 * 7)
    os._exit(0 if (got, number) == (b"alive", 42) else 1)
_, status = os.waitpid(pid, 0)
ticker.get(timeout=5)
print(os.waitstatus_to_exitcode(status))
"""


def test_T_G5_a_child_that_was_forked_after_the_hub_began_has_a_hub_of_its_own():
    assert python(FORKED) == "0"
