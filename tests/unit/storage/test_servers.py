"""The servers of the tests go with the tests, also when those are killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

from tests.patience import wait_until
from tests.runtime.processes import ROOT, Program

SCRIPT = """
import time
from tests import servers
with servers.redis_server() as redis, servers.postgres() as postgres:
    print("ready", redis.port, postgres.host, flush=True)
    time.sleep(60)
"""


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_no_server_outlives_killed_tests() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ = {name: value for name, value in environ.items() if "TIDEGATE_TEST" not in name}
    with closing(Program([sys.executable, "-c", SCRIPT], environ)) as program:
        ready = program.wait_for(r"ready (\d+) (.+)$", 30)
        port, folder = int(ready[1]), Path(ready[2].strip())
        assert _answers(port)
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not _answers(port) and not folder.exists(), 20)
