"""Clients whose machine or network vanished: no FIN, no RST, and no answer to anything (T-B2)."""

from __future__ import annotations

import socket
import time

import pytest

from tests.faults.clients import act, lose_network, opened, sessions
from tests.hosting import PLUGINS, package_of
from tests.stack import running_stack, wait_until

SILENCE = 4.0
#: A look each quarter, and the kernel's keep-alive counts in whole seconds.
NOTICED = SILENCE * 1.25 + 2

pytestmark = [
    pytest.mark.limit(120, "starts all four roles; the network is silent for seconds"),
    pytest.mark.blocks_hub("starts processes, builds a package"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("silence") / "home"
    with running_stack(home, TIDEGATE_CLIENT_SILENCE=f"{SILENCE:g}") as stack:
        stack.install(package_of(PLUGINS / "misbehave", home.parent))
        assert act(stack, "echo", text="up").texts == ["up"]
        yield stack


def ended_after(stack, sock: socket.socket) -> float:
    """Seconds from the loss of the network to the end of its session in the plugin."""
    assert b"200" in sock.recv(4096)
    assert wait_until(lambda: sessions(stack) == 1, 5)
    lose_network(sock)
    began = time.monotonic()
    wait_until(lambda: sessions(stack) == 0, NOTICED)
    return time.monotonic() - began


def test_T_B2_a_silent_network_under_an_idle_stream_is_noticed_by_keep_alive(stack):
    with opened(stack, "hang") as sock:
        assert ended_after(stack, sock) > 1, "it did not end by itself"
    assert act(stack, "echo", text="on").texts == ["on"]


def test_T_B2_a_silent_network_with_bytes_on_their_way_is_noticed_as_soon(stack):
    with opened(stack, "stream", count=10000, pause=0.05) as sock:
        assert ended_after(stack, sock) > SILENCE - 1
    assert stack.metric("plugin_invocations_active") == 0


def test_T_B2_a_client_that_is_there_and_does_not_read_is_not_taken_for_silent(stack):
    with opened(stack, "stream", buffer=4096, count=3000, size=2000) as slow:
        assert slow.recv(1)
        ends_at = time.monotonic() + NOTICED + 1
        while time.monotonic() < ends_at:
            assert act(stack, "echo", text="on").texts == ["on"]
            time.sleep(0.1)
        rest = b""
        while b"\r\n0\r\n\r\n" not in rest[-64:]:
            data = slow.recv(1 << 20)
            assert data, "cut"
            rest += data
    assert b"2999 x" in rest[-(1 << 14) :]
