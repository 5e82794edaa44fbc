"""An api that may open 256 files, and 500 clients: the surplus is told, nobody hangs (T-R1)."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
from collections import Counter
from pathlib import Path

import gevent
import pytest

from tests.faults.clients import MISBEHAVE, act, data_of
from tests.hosting import PLUGINS, package_of
from tests.patience import wait_until
from tests.stack import Stack, running_stack

FILES, CLIENTS = 256, 500

pytestmark = [
    pytest.mark.limit(120, "starts all four roles and one of them twice"),
    pytest.mark.blocks_hub("starts processes, opens hundreds of connections"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("files") / "home"
    with running_stack(home) as stack:
        stack.install(package_of(PLUGINS / "misbehave", home.parent))
        _start_api_again(stack)
        yield stack


def _start_api_again(stack: Stack) -> None:
    """`up` starts it anew, and what it starts from now on has few files."""
    old, up = stack.pid("api"), stack.process
    assert up is not None
    resource.prlimit(up.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    os.kill(old, signal.SIGKILL)
    written = stack.home / "run" / "api.pid"
    wait_until(lambda: written.exists() and stack.pid("api") != old, 30)
    wait_until(stack._ready, 30)


def worker(stack: Stack) -> int:
    return int(json.loads(stack.ask("GET", "/debug/runtime")[1])["data"]["api"]["pid"])


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def one_client(stack: Stack, seen: Counter[str]) -> None:
    """A call for some seconds; what it came to."""
    path, body, headers = stack.request(
        MISBEHAVE, "tool/invoke", data_of("stream", count=40, pause=0.1)
    )
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status == 429 and answer.headers["Retry-After"] and b"open files" in text:
            seen["refused"] += 1
        else:
            seen["whole" if text.count(b"data: ") == 40 else "not whole"] += 1
    finally:
        connection.close()


def test_T_R1_with_256_files_500_clients_are_served_or_politely_refused(stack):
    pid, host = worker(stack), stack.pid("host")
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (FILES, FILES)
    assert act(stack, "echo", text="before").texts == ["before"]
    before = files(pid)
    seen: Counter[str] = Counter()
    clients = [gevent.spawn(one_client, stack, seen) for _ in range(CLIENTS)]
    gevent.sleep(2)
    assert seen["refused"] > CLIENTS / 2, "who is refused hears it at once, not when there is room"
    assert stack.ask("GET", "/health/check")[0] == 200, "the answer to everything else stays"
    gevent.joinall(clients, raise_error=True)
    assert set(seen) == {"whole", "refused"}
    assert seen["whole"] >= FILES / 2
    assert seen.total() == CLIENTS
    assert act(stack, "echo", text="after").texts == ["after"]
    wait_until(lambda: files(pid) <= before + 3, 10)
    assert (worker(stack), stack.pid("host")) == (pid, host)


def test_T_R1_more_connections_than_files_that_say_nothing_and_leave_cost_nothing(stack):
    pid = worker(stack)
    silent = [stack.connection() for _ in range(CLIENTS)]
    for connection in silent:
        connection.connect()
    for connection in silent:
        connection.close()
    assert act(stack, "echo", text="after").texts == ["after"]
    assert worker(stack) == pid
    assert "Too many open files" not in Path(stack.log).read_text()
