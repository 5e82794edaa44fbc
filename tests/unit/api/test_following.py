"""Requests that follow a stream on its connection: which are served here, which by gunicorn."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from tests.unit.api.conftest import HEAD, looks_at_following, request
from tests.unit.api.test_streaming import CHUNK, EVENT, new_stream
from tidegate.api import following
from tidegate.doors.routes import Outcome

STREAM = request("POST", "/stream", b"{}")


@pytest.fixture(autouse=True)
def looked_at(monkeypatch):
    """What was taken here, and what was left to gunicorn."""
    return looks_at_following(monkeypatch)


def stream_once(harness, client, text: bytes = STREAM) -> None:
    """One stream of one chunk, read to its end."""
    source = harness.source = new_stream()
    source.push(CHUNK)
    source.finish()
    client.send(text)
    status, headers, body = client.answer()
    assert (status, body) == (200, EVENT)
    assert headers["content-type"] == "text/event-stream"


def test_plain_dispatch_requests_are_taken(harness, connect, looked_at) -> None:
    client = connect()
    for _ in range(5):
        stream_once(harness, client)
    assert looked_at == [True] * 4
    assert harness.outcomes == [Outcome.SUCCESS] * 5
    assert (harness.load.requests, harness.load.dispatching) == (0, 0)


def test_the_key_is_asked_for_each_time(harness, connect, looked_at) -> None:
    client = connect()
    stream_once(harness, client)
    wrong = request("POST", "/stream", b"{}", head=HEAD.replace(b"secret", b"wrong"))
    client.send(wrong)
    status, headers, _ = client.answer()
    assert (status, headers["content-type"]) == (401, "application/json; charset=utf-8")
    stream_once(harness, client)
    assert looked_at == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        request("GET", "/plain"),
        request("GET", "/open", head=b"Host: x\r\n"),
        request("POST", "/body", b"hello"),
        b"POST /body HTTP/1.1\r\n"
        + HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        request("POST", "/body", b"hello", head=HEAD + b"Expect: 100-continue\r\n"),
        request("POST", "/body?a=1", b"hello"),
    ],
)
def test_everything_else_is_left_to_gunicorn(harness, connect, looked_at, text: bytes) -> None:
    client = connect()
    stream_once(harness, client)
    client.send(text)
    if b"Expect" in text:
        assert client.head()[0] == 100
    status, _, body = client.answer()
    assert (status, body) == (200, b"{}")
    stream_once(harness, client)
    assert looked_at == [False]


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive, upgrade\r\n",
        b"X_Api_Key: secret\r\n",
        b"X-Api-Key: secret\r\n",
        b"Content-Length: 2\r\n",
        b"Bad Name: x\r\n",
        b" folded: x\r\n",
        b"Script-Name: /x\r\nScript_Name: /x\r\n",
    ],
)
def test_T_S16_a_head_that_is_not_plain_is_left_to_gunicorn(
    harness, connect, looked_at, line: bytes
) -> None:
    client = connect()
    stream_once(harness, client)
    source = harness.source = new_stream()
    source.finish()
    client.send(request("POST", "/stream", b"{}", head=HEAD + line))
    client.sock.settimeout(0.5)
    try:
        client.rest()
    except TimeoutError:
        pass  # gunicorn answered, and keeps the connection
    assert looked_at[0] is False
    source.close()


@pytest.mark.parametrize("cut", [1, 10, 60, len(STREAM) - 1])
def test_a_request_in_pieces_is_left_to_gunicorn(harness, connect, looked_at, cut: int) -> None:
    client = connect()
    stream_once(harness, client)
    source = harness.source = new_stream()
    source.push(CHUNK)
    source.finish()
    client.send(STREAM[:cut])
    while not looked_at:
        gevent.sleep(0.001)
    client.send(STREAM[cut:])
    assert client.answer()[2] == EVENT
    assert looked_at == [False]


def test_requests_that_were_sent_ahead_are_answered_in_order(harness, connect, looked_at) -> None:
    """Two that gunicorn read at once: the second must not be overtaken by what comes later."""
    client = connect()
    harness.source = new_stream()
    harness.source.push(CHUNK)
    harness.source.finish()
    client.send(STREAM + request("GET", "/plain"))
    assert client.answer()[2] == EVENT
    assert client.answer()[2] == b"{}"
    stream_once(harness, client)
    harness.source = new_stream()
    harness.source.push(CHUNK)
    harness.source.finish()
    client.send(STREAM + request("GET", "/plain") + request("GET", "/nothing"))
    assert [client.answer()[0] for _ in range(3)] == [200, 200, 404]
    assert looked_at == [True, False]


def test_a_large_request_is_left_to_gunicorn(harness, connect, looked_at) -> None:
    client = connect()
    stream_once(harness, client)
    stream_once(harness, client, request("POST", "/stream", b" " * following.PEEK))
    assert looked_at == [False]


def test_an_idle_connection_is_ended_after_a_while(harness, connect, monkeypatch) -> None:
    monkeypatch.setattr(following, "KEPT", 0.05)
    client = connect()
    stream_once(harness, client)
    assert client.rest() == b""


def test_a_drain_ends_idle_connections_at_once(harness, connect) -> None:
    client = connect()
    stream_once(harness, client)
    gevent.sleep(0.01)
    harness.drain.begin(5)
    assert client.rest() == b""


def test_without_the_parser_in_c_gunicorn_reads_everything(
    harness, connect, looked_at, monkeypatch
) -> None:
    monkeypatch.setattr(following, "parser", None)
    client = connect()
    for _ in range(3):
        stream_once(harness, client)
    assert looked_at == []


class Broken:
    """A source that makes the server's own mistake, once it is let go."""

    ready = False

    def __init__(self) -> None:
        self.taking, self.let_go = Event(), Event()

    def take(self) -> list[bytes]:
        self.taking.set()
        self.let_go.wait(10)
        raise RuntimeError("no stream does this")

    def close(self) -> None: ...


def test_T_S16_nothing_runs_on_a_connection_that_was_ended(harness, connect, looked_at) -> None:
    """What was sent behind a request whose stream broke: nobody could hear its answer."""
    broken = harness.source = Broken()
    client = connect()
    client.send(STREAM)
    broken.taking.wait(10)
    client.send(STREAM)  # lies in the socket when the connection is ended
    broken.let_go.set()
    assert client.rest() == b""
    assert looked_at == []
    assert len(harness.outcomes) == 1
