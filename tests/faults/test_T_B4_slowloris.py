"""Clients that take for ever over a head or a body are cut off, and hold up nobody (T-B4)."""

from __future__ import annotations

import time

import gevent
import pytest

from tests.patience import patience
from tests.unit.api.conftest import HEAD, Client, Harness, request
from tidegate.settings import Settings
from tidegate.testing.api_server import served


@pytest.fixture
def harness(tmp_path):
    given = {"TIDEGATE_HOME": str(tmp_path), "SERVER_KEY": "secret", "TIDEGATE_BODY_TIMEOUT": "1"}
    harness = Harness(Settings.load(given))
    with served(harness.application, keepalive=1) as address:
        harness.address = address
        yield harness


def drip(harness: Harness, text: bytes, every: float = 0.1) -> tuple[float, bytes]:
    """Byte by byte until the server hangs up: (seconds, answer)."""
    client, began = Client(harness.address), time.monotonic()
    try:
        for byte in text * 20:
            client.send(bytes([byte]))
            gevent.sleep(every)
    except OSError:
        pass  # that is how it ends
    took = time.monotonic() - began
    try:
        return took, client.rest()
    except OSError:
        return took, b""
    finally:
        client.close()


def test_T_B4_a_head_that_comes_byte_by_byte_is_cut(harness):
    took, answer = drip(harness, b"GET /open HTTP/1.1\r\nX-Slow: " + b"a" * 50)
    assert took < patience(4)
    assert b"200" not in answer


def test_T_B4_a_body_that_comes_byte_by_byte_is_told_and_cut(harness):
    client = Client(harness.address)
    began = time.monotonic()
    client.send(b"POST /body HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000\r\n\r\n{")
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (408, "close")
    assert 0.5 < time.monotonic() - began < patience(4)
    assert harness.bodies == []
    client.close()


def test_T_B4_two_hundred_of_them_hold_up_nobody(harness):
    slow = [Client(harness.address) for _ in range(200)]
    for client in slow:
        client.send(b"POST /body HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000\r\n\r\n{")
    quick = Client(harness.address)
    began = time.monotonic()
    quick.send(request("GET", "/plain"))
    assert quick.answer()[0] == 200
    assert time.monotonic() - began < patience(0.5)
    for client in [*slow, quick]:
        client.close()
