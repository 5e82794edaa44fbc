"""Clients that hardly read, that reset, that hang up, and whose network vanishes (T-B1, T-B2)."""

from __future__ import annotations

import os
import re
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import gevent
import pytest

from tests.faults.clients import act, lose_network, opened, sessions
from tests.hosting import PLUGINS, package_of
from tests.patience import wait_until
from tests.stack import Stack, running_stack

SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
SILENCE = 4.0
#: A look each quarter, and the kernel's keep-alive counts in whole seconds.
NOTICED = SILENCE * 1.25 + 2
MEMORY = 1 << 20

pytestmark = [
    pytest.mark.limit(180, "starts all four roles; the network is silent for seconds"),
    pytest.mark.blocks_hub("starts processes, builds a package, reads a hundred streams"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("silence") / "home"
    given = {"TIDEGATE_CLIENT_SILENCE": f"{SILENCE:g}", "TIDEGATE_CALL_MEMORY": str(MEMORY)}
    with running_stack(home, **given) as stack:
        stack.install(package_of(PLUGINS / "misbehave", home.parent))
        assert act(stack, "echo", text="up").texts == ["up"]
        yield stack


# --------------------------------------------------------------------------- T-B1

OTHERS, CHUNKS, EVERY = 99, 60, 0.02
#: With the slow one, or without: in turns, so that drift falls on both.
ROUNDS = (True, False, False, True) * 4 if SOAK else (True, False, False, True, True, False)
KEPT = 0.9 if SOAK else 0.75


@pytest.mark.stretched
def test_T_B1_99_streams_keep_their_rate_beside_one_that_reads_a_byte_a_second(stack):
    """All of one plugin. The slow one's chunks go to its memory, then to its spool."""
    rate(stack)  # everything is warm
    rates: dict[bool, list[float]] = {True: [], False: []}
    for slowly in ROUNDS:
        with slow_consumer(stack) if slowly else nullcontext():
            rates[slowly].append(rate(stack))
    beside, alone = (statistics.median(rates[slowly]) for slowly in (True, False))
    assert beside > KEPT * alone, rates
    assert stack.metric("plugin_invocations_active") == 0


def rate(stack: Stack) -> float:
    """Chunks per second that 99 streams bring together; each of them is whole."""
    began = time.monotonic()
    given = {"count": CHUNKS, "pause": EVERY}
    streams = [gevent.spawn(act, stack, "stream", **given) for _ in range(OTHERS)]
    gevent.joinall(streams, raise_error=True)
    took = time.monotonic() - began
    expected = [f"{number} " for number in range(CHUNKS)]
    assert [one.value for one in streams if one.value.texts != expected] == []
    return OTHERS * CHUNKS / took


@contextmanager
def slow_consumer(stack: Stack) -> Iterator[None]:
    """Takes a byte a second while the block runs, and then the rest, which has to be whole."""
    many = 2 * CHUNKS
    spooled = stack.metric("tidegate_spooled_bytes_total")
    given = {"count": many, "pause": EVERY, "size": 100_000}
    with opened(stack, "stream", buffer=4096, **given) as sock:
        assert sock.recv(1)
        reader = gevent.spawn(sip, sock)
        yield
        reader.kill()
        wait_until(lambda: sessions(stack) == 0, 30)
        assert stack.metric("tidegate_spooled_bytes_total") - spooled > MEMORY
        rest = read_out(sock)
    numbers = [int(one) for one in re.findall(rb'"text":\s*"(\d+) x', rest)]
    assert numbers[-many + 1 :] == list(range(1, many))


def sip(sock: socket.socket) -> None:
    while sock.recv(1):
        gevent.sleep(1)


def read_out(sock: socket.socket) -> bytes:
    """All that is left of a stream, to its end."""
    rest = bytearray()
    while b"\r\n0\r\n\r\n" not in rest[-64:]:
        data = sock.recv(1 << 20)
        assert data, "cut"
        rest += data
    return bytes(rest)


# --------------------------------------------------------------------------- T-B2


def test_T_B2_clients_that_reset_end_their_sessions_within_a_second(stack):
    before = stack.metric("plugin_invocations_active")
    socks = [opened(stack, "hang") for _ in range(10)]
    for sock in socks:
        assert b"200" in sock.recv(4096)
    assert wait_until(lambda: sessions(stack) == 10, 5)
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    wait_until(lambda: sessions(stack) == 0, 2)
    wait_until(lambda: stack.metric("plugin_invocations_active") == before, 2)


def test_T_B2_a_client_that_closes_half_is_gone_as_well(stack):
    """Its FIN says that nobody asks any more, though it would still read."""
    with opened(stack, "hang") as sock:
        assert b"200" in sock.recv(4096)
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: sessions(stack) == 0, 2)


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
        rest = read_out(slow)
    assert b"2999 x" in rest[-(1 << 14) :]
