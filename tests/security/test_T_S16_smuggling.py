"""Requests that two servers would cut apart in two ways: refused, and nothing hidden is served."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Client, Harness
from tidegate.settings import Settings
from tidegate.testing.api_server import served

#: What a smuggler wants to see answered: its body counts as served when it reaches a handler.
HIDDEN = b"POST /body HTTP/1.1\r\nHost: x\r\nX-Api-Key: secret\r\nContent-Length: 6\r\n\r\nHIDDEN"
LINE = b"POST /body HTTP/1.1\r\n"
HEAD = b"Host: x\r\nX-Api-Key: secret\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

CORPUS = {
    "length and chunks": LINE + HEAD + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and length": LINE + HEAD + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": LINE + HEAD + b"Content-Length: 2\r\nContent-Length: 0\r\n\r\n{}",
    "a list of lengths": LINE + HEAD + b"Content-Length: 2, 0\r\n\r\n{}",
    "a signed length": LINE + HEAD + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": LINE + HEAD + b"Content-Length: -1\r\n\r\n{}",
    "a hexadecimal length": LINE + HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "a length with underscore": LINE + HEAD + b"Content-Length: 1_0\r\n\r\n{}        ",
    "a length of other digits": LINE + HEAD + b"Content-Length: \xb2\r\n\r\n{}",
    "chunked twice": LINE + HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked, not last": LINE + HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown coding": LINE + HEAD + b"Transfer-Encoding: cow\r\n\r\n",
    "chunked with a tab": LINE + HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": LINE + HEAD + b"Content-Length : 2\r\n\r\n{}",
    "coding with a space": LINE + HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": LINE + HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a header without colon": LINE + HEAD + b"Content-Length 2\r\n\r\n{}",
    "a NUL in a header": LINE + HEAD + b"X-A: b\x00c\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR in a header": LINE + HEAD + b"X-A: b\rContent-Length: 60\r\n\r\n",
    "a chunk size of words": LINE + HEAD + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk size with sign": LINE + HEAD + CHUNKED + b"\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with 0x": LINE + HEAD + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk without its end": LINE + HEAD + CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /body HTTP/1.0\r\n" + HEAD + CHUNKED + b"\r\n0\r\n\r\n",
    "a version that there is not": b"POST /body HTTP/9.9\r\n" + HEAD + b"\r\n",
    "a method with a space": b"PO ST /body HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a path with a space": b"POST /bo dy HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a bare LF": b"POST /body HTTP/1.1\nHost: x\nX-Api-Key: secret\nContent-Length: 2\n\n{}",
}  # fmt: skip


@pytest.fixture
def harness(tmp_path):
    harness = Harness(Settings.load({"TIDEGATE_HOME": str(tmp_path), "SERVER_KEY": "secret"}))
    with served(harness.application, keepalive=1) as address:
        harness.address = address
        yield harness


def answers(harness: Harness, sent: bytes) -> bytes:
    client = Client(harness.address)
    try:
        client.send(sent)
        return client.rest()
    finally:
        client.close()


@pytest.mark.parametrize("name", CORPUS)
def test_T_S16_an_ambiguous_request_serves_nothing_that_follows_it(harness, name):
    got = answers(harness, CORPUS[name] + HIDDEN)
    assert b"HIDDEN" not in b"".join(harness.bodies)
    assert got.count(b"HTTP/1.1 200") <= 1
    status = got[9:12]
    assert status in (b"", b"400", b"401", b"404", b"405", b"413", b"501", b"505"), got[:200]


def test_T_S16_plain_requests_one_after_the_other_are_served(harness):
    """The guard's own test: the corpus is refused for what it is, not for following anything."""
    plain = LINE + HEAD + b"Content-Length: 2\r\n\r\n{}"
    assert answers(harness, plain + HIDDEN).count(b"HTTP/1.1 200") == 2
    assert harness.bodies == [b"{}", b"HIDDEN"]


def test_T_S16_a_refused_upgrade_makes_no_tunnel(harness):
    upgrade = (
        b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    got = answers(harness, upgrade + HIDDEN)
    assert got.startswith(b"HTTP/1.1 401")
    assert got.count(b"HTTP/1.1 ") == 1
