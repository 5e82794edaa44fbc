"""Requests that two servers would cut apart in two ways: refused, and nothing hidden is served."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Client, Harness, looks_at_following, request
from tests.unit.api.test_streaming import new_stream
from tidegate.settings import Settings
from tidegate.testing.api_server import served

#: What a smuggler wants to see answered: its body counts as served when it reaches a handler.
HIDDEN = b"POST /body HTTP/1.1\r\nHost: x\r\nX-Api-Key: secret\r\nContent-Length: 6\r\n\r\nHIDDEN"
STREAM = request("POST", "/stream", b"{}")
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
    "a bare CR in the query": b"POST /body?a=\rX-A:b HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a control in the path": b"POST /body\x01 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "an empty name": LINE + HEAD + b": 2\r\n\r\n{}",
    "a length of too many digits": LINE + HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}",
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


@pytest.fixture
def looked_at(monkeypatch):
    """Whether the look at what follows a stream took it as plain."""
    return looks_at_following(monkeypatch)


@pytest.mark.parametrize("name", CORPUS)
def test_T_S16_an_ambiguous_request_is_rejected_and_ends_its_connection(harness, name):
    """None of them is served, so none may have a 200; what comes behind it is never read."""
    assert_rejected(harness, answers(harness, CORPUS[name] + HIDDEN))


@pytest.mark.parametrize("name", CORPUS)
def test_T_S16_an_ambiguous_request_behind_a_stream_is_rejected_as_well(harness, looked_at, name):
    """There our own look comes before gunicorn's: it must not take what gunicorn would refuse."""
    client = Client(harness.address)
    try:
        source = harness.source = new_stream()
        source.finish()
        client.send(STREAM)
        assert client.answer()[0] == 200
        harness.source = None
        client.send(CORPUS[name].replace(b"/body", b"/stream") + HIDDEN)
        got = client.rest()
    finally:
        client.close()
    assert looked_at == [False]
    assert_rejected(harness, got)


def assert_rejected(harness, got):
    assert got.startswith(b"HTTP/1.1 400 "), got[:200]
    assert b"\r\nHTTP/1." not in got
    assert b"\r\nConnection: close\r\n" in got
    assert harness.bodies == []


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
