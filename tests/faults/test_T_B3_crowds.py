"""Thousands of streams that say nothing, and thousands who knock within a second (T-B3)."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from pathlib import Path

import gevent
import pytest

from tests.faults.clients import act, request_of, sessions
from tests.faults.sampling import private_memory, role_pids
from tests.hosting import PLUGINS, package_of
from tests.patience import wait_until
from tests.stack import Stack, running_stack

EACH = 25 << 10
"""Bytes of api and host together that one idle stream may cost."""

pytestmark = pytest.mark.blocks_hub("thousands of connections are this test's own work")


@pytest.mark.limit(180, "thousands of streams are opened")
def test_T_B3_two_thousand_idle_streams_and_two_thousand_knocks(tmp_path):
    crowd(tmp_path, 2000, served_within=3)


@pytest.mark.soak
@pytest.mark.limit(600, "the whole crowd")
def test_T_B3_ten_thousand_idle_streams_and_ten_thousand_knocks(tmp_path):
    crowd(tmp_path, 10_000, served_within=10)


def crowd(home: Path, many: int, *, served_within: float) -> None:
    """One kind after the other on one stack, and what they cost and whom they keep waiting."""
    variables = {"SERVER_WORKER_CONNECTIONS": str(2 * many)}
    with running_stack(home / "home", **variables) as stack:
        _allow_files(2 * many)
        stack.install(package_of(PLUGINS / "misbehave", home))
        stack.install(package_of(PLUGINS / "misbehave", home, name="bystander"))
        assert served(stack) < served_within
        host = stack.pid("host")
        with contextlib.ExitStack() as open_ones:
            be_idle(stack, many, open_ones)
            assert max(served(stack) for _ in range(5)) < served_within
        wait_until(lambda: sessions(stack) == 0, 30)
        with contextlib.ExitStack() as open_ones:
            knocking = gevent.spawn(knock, stack.port, many, open_ones)
            took = [served(stack) for _ in range(5)]
            assert knocking.get()
            took.append(served(stack))
            assert max(took) < served_within, took
        assert stack.metric("plugin_invocations_active") == 0
        assert stack.pid("host") == host


def served(stack: Stack) -> float:
    """Seconds of a call to the other plugin, which is served while this one has its crowd."""
    answer = act(stack, "echo", "tidegate/bystander", text="on")
    assert answer.texts == ["on"], answer
    return answer.took


def be_idle(stack: Stack, many: int, open_ones: contextlib.ExitStack) -> None:
    """Calls to a tool that says nothing more; a hundred at a time. Each costs little."""
    asked, before = request_of(stack, "hang"), memory(stack)
    for number in range(many):
        address = ("127.0.0.1", stack.port)
        stream = open_ones.enter_context(socket.create_connection(address, timeout=30))
        stream.sendall(asked)
        if number % 100 == 99:
            gevent.sleep(0.05)
    wait_until(lambda: stack.metric("plugin_invocations_active") == many, 60)
    each = (memory(stack) - before) / many
    assert each < EACH, f"{each:.0f} bytes a stream"


def memory(stack: Stack) -> int:
    """Private bytes of api and host."""
    pids = [*role_pids(stack, "api"), *role_pids(stack, "host")]
    return sum(map(private_memory, pids))


def knock(port: int, many: int, open_ones: contextlib.ExitStack) -> bool:
    """``many`` connections as fast as the kernel takes them; done when all are established."""
    began = time.monotonic()
    with selectors.DefaultSelector() as waiting:
        for number in range(many):
            sock = open_ones.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            waiting.register(sock, selectors.EVENT_WRITE)
            if number % 200 == 199:
                gevent.sleep(0)
        assert time.monotonic() - began < max(1.0, many / 2000)
        while waiting.get_map():
            for key, _ in waiting.select(30):
                assert key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                waiting.unregister(key.fileobj)
    return True


def _allow_files(wanted: int) -> None:
    """This process holds all those connections; the limit stays for the tests after it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
