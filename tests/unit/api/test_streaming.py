"""Streamed answers on real sockets: framing, ends, clients that leave or do not read, drain."""

from __future__ import annotations

import gc
import json
import socket
import struct
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.patience import patience
from tests.unit.api.conftest import HEAD, request
from tidegate.api import watch
from tidegate.api.iterating import iterate
from tidegate.api.streaming import OpenStreams, SocketStream
from tidegate.calls import Stream
from tidegate.deadline import Budget, Deadline
from tidegate.doors.dify.opening import before_head, error_event
from tidegate.doors.routes import Outcome, StreamResponse
from tidegate.errors import Overloaded, PluginDied
from tidegate.runtime.drain import Drain
from tidegate.wire import sse

CHUNK = b'{"type":"text","message":{"text":"hi"},"meta":null}'
EVENT = b'data: {"code":0,"message":"success","data":' + CHUNK + b"}\n\n"


def new_stream(seconds: float = 30.0, *, memory: int = 8 << 20, idle: float = 0.0) -> Stream:
    deadline = Deadline.after(seconds, "PLUGIN_MAX_EXECUTION_TIMEOUT")
    return Stream(deadline, Budget(memory), idle_seconds=idle)


@pytest.fixture
def stream(harness) -> Stream:
    harness.source = new_stream()
    yield harness.source
    harness.source.close()


def inner(event: bytes) -> dict[str, Any]:
    """The innermost error of an error event."""
    envelope = json.loads(event.removeprefix(b"data: "))
    assert envelope["code"] == -500
    assert envelope["data"] is None
    error = json.loads(envelope["message"])
    assert error["error_type"] == "PluginInvokeError"
    return json.loads(error["message"])


def test_chunks_are_events_and_the_connection_is_kept(harness, stream, connect) -> None:
    client = connect()
    for _ in range(2):
        source = harness.source = new_stream()
        client.send(request("POST", "/stream"))
        gevent.spawn(lambda source=source: (source.push(CHUNK), source.finish()))
        status, headers, body = client.answer()
        assert status == 200
        assert headers["content-type"] == "text/event-stream"
        assert headers["transfer-encoding"] == "chunked"
        assert "connection" not in headers
        assert body == EVENT
    assert harness.outcomes == [Outcome.SUCCESS, Outcome.SUCCESS]
    assert len(harness.streams) == 0


def test_nothing_is_sent_before_the_first_chunk(harness, stream, connect) -> None:
    client = connect()
    client.send(request("POST", "/stream"))
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    client.sock.settimeout(10)
    stream.push(CHUNK)
    assert client.head()[0] == 200
    assert client.until(EVENT)
    stream.push(CHUNK + b"\n" + CHUNK)
    assert client.until(EVENT + EVENT)
    stream.finish()
    assert client.until(b"0\r\n\r\n")


def test_a_short_call_is_one_write(harness, stream, connect) -> None:
    stream.push(CHUNK)
    stream.finish()
    client = connect()
    client.send(request("POST", "/stream"))
    whole = client.sock.recv(65536)
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(EVENT + b"\r\n0\r\n\r\n")


def test_a_stream_without_chunks_is_an_empty_200(harness, stream, connect) -> None:
    stream.finish()
    client = connect()
    client.send(request("POST", "/stream"))
    assert client.answer()[::2] == (200, b"")


SPLITTING = "a\nb\r\nc\rd\u0085e\u2028f\u2029g"


def test_T_P9_what_splits_lines_is_escaped_and_splits_no_event(harness, stream, connect) -> None:
    stream.push(json.dumps({"t": SPLITTING}, ensure_ascii=False).encode())
    stream.push(CHUNK)
    stream.finish()
    client = connect()
    client.send(request("POST", "/stream"))
    body = client.answer()[2]
    lines = body.decode().splitlines()
    assert lines[1::2] == ["", ""]
    first, second = (json.loads(line.removeprefix("data: ")) for line in lines[::2])
    assert first["data"] == {"t": SPLITTING}
    assert second["data"] == json.loads(CHUNK)


def test_T_P9_segments_of_one_byte_are_as_good_as_any(harness, stream, connect) -> None:
    stream.push(CHUNK)
    stream.finish()
    client = connect()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request("POST", "/stream"):
        client.send(bytes([byte]))
        gevent.sleep(0)
    said = b""
    while not said.endswith(b"0\r\n\r\n"):
        said += client.sock.recv(1)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT)


def test_D_03_the_plugins_own_error_passes_unchanged_behind_its_chunks(
    harness, stream, connect
) -> None:
    error = b'{"error_type":"InvokeRateLimitError","message":"429","args":{"n":9007199254740993}}'
    stream.push(CHUNK)
    stream.fail(error)
    stream.finish()
    client = connect()
    client.send(request("POST", "/stream"))
    status, _, body = client.answer()
    assert status == 200
    assert body.startswith(EVENT)
    assert inner(body[len(EVENT) :]) == json.loads(error)
    assert harness.outcomes == [Outcome.ERROR]


def test_an_error_before_the_first_chunk_is_a_typed_event(harness, stream, connect) -> None:
    stream.abort(PluginDied("plugin died", exit_code=3))
    client = connect()
    client.send(request("POST", "/stream"))
    status, headers, body = client.answer()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert inner(body)["error_type"] == "PluginDied"
    assert inner(body)["args"] == {"exit_code": 3}


def test_admission_before_the_first_chunk_is_a_plain_429(harness, stream, connect) -> None:
    stream.abort(Overloaded("too many sessions", retry_after=3))
    client = connect()
    client.send(request("POST", "/stream"))
    status, headers, body = client.answer()
    assert (status, headers["retry-after"]) == (429, "3")
    assert headers["content-type"].startswith("application/json")
    assert json.loads(body)["code"] == -500


def test_the_deadline_ends_the_stream_and_says_who_set_it(harness, connect) -> None:
    harness.source = new_stream(0.05)
    harness.source.push(CHUNK)
    client = connect()
    client.send(request("POST", "/stream"))
    _, _, body = client.answer()
    error = inner(body[len(EVENT) :])
    assert error["error_type"] == "DeadlineExceeded"
    assert "killed by timeout" in error["message"]
    assert error["args"]["owner"] == "PLUGIN_MAX_EXECUTION_TIMEOUT"
    assert harness.outcomes == [Outcome.TIMEOUT]


def test_T_P9_an_http_1_0_client_gets_no_chunks_and_the_end_of_the_connection(
    harness, stream, connect
) -> None:
    client = connect()
    client.send(b"POST /stream HTTP/1.0\r\nConnection: keep-alive\r\n" + HEAD + b"\r\n")
    stream.push(CHUNK)
    status, headers = client.head()
    assert status == 200
    assert headers["connection"] == "close"
    assert "transfer-encoding" not in headers
    stream.finish()
    assert client.rest() == EVENT


def test_a_client_that_asks_to_close_is_told_so(harness, stream, connect) -> None:
    stream.push(CHUNK)
    stream.finish()
    client = connect()
    client.send(request("POST", "/stream", head=HEAD + b"Connection: close\r\n"))
    status, headers, body = client.answer()
    assert (status, headers["connection"], body) == (200, "close", EVENT)
    assert client.rest() == b""


# ------------------------------------------------------------------ clients that leave


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_an_idle_stream_is_noticed_at_once(
    harness, stream, connect, begun: bool
) -> None:
    client = connect()
    client.send(request("POST", "/stream"))
    if begun:
        stream.push(CHUNK)
        client.until(EVENT)
    else:
        while not len(harness.streams):
            gevent.sleep(0)
    client.close()
    assert harness.finished.wait(patience(1))
    assert harness.outcomes == [Outcome.CLIENT_LEFT]
    assert stream.closed


def test_T_B2_a_reset_is_noticed_at_once(harness, stream, connect) -> None:
    client = connect()
    client.send(request("POST", "/stream"))
    stream.push(CHUNK)
    client.until(EVENT)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert harness.finished.wait(patience(1))
    assert harness.outcomes == [Outcome.CLIENT_LEFT]


def streams_in_memory() -> int:
    return sum(isinstance(one, SocketStream) for one in gc.get_objects())


@pytest.mark.blocks_hub("looks through all objects of the process")
def test_a_watched_stream_is_gone_without_a_collection(harness, connect) -> None:
    harness.source = new_stream()
    harness.source.push(CHUNK)
    client = connect()
    client.send(request("POST", "/stream"))
    client.until(EVENT)
    gevent.sleep(2 * watch.YOUNG)
    gc.collect()
    assert streams_in_memory() == 1
    gc.disable()
    try:
        client.close()
        assert harness.finished.wait(patience(1))
        while streams_in_memory():
            gevent.sleep(0.01)
    finally:
        gc.enable()


def test_a_client_that_leaves_while_it_does_not_read_is_noticed(harness, connect) -> None:
    source = harness.source = new_stream()
    client = connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(request("POST", "/stream"))
    for _ in range(64):
        source.push(b'"' + b"x" * 100_000 + b'"')
    client.until(b"\r\n\r\n")
    gevent.sleep(0)
    client.close()
    assert harness.finished.wait(patience(1))
    assert harness.outcomes == [Outcome.CLIENT_LEFT]


def test_a_client_that_does_not_read_costs_only_its_own_call(harness, connect) -> None:
    source = harness.source = new_stream(memory=1 << 20)
    stuck = connect()
    stuck.send(request("POST", "/stream"))
    for _ in range(400):  # more than the kernel's buffers and the call's budget hold
        source.push(b'"' + b"x" * 100_000 + b'"')
        gevent.sleep(0)
    other = connect()
    other.send(request("GET", "/plain"))
    assert other.answer()[0] == 200
    body = stuck.answer()[2]
    assert inner(body[body.rindex(b"data: ") :])["error_type"] == "SlowConsumer"


def test_a_request_that_was_sent_ahead_is_answered_next(harness, stream, connect) -> None:
    client = connect()
    client.send(request("POST", "/stream"))
    stream.push(CHUNK)
    client.until(EVENT)
    client.send(request("GET", "/plain"))
    gevent.sleep(0.01)
    stream.finish()
    client.until(b"0\r\n\r\n")
    assert client.answer()[0] == 200
    assert harness.outcomes == [Outcome.SUCCESS]


def test_large_bodies_arrive_whole(harness, connect) -> None:
    source = harness.source = new_stream(memory=1 << 30)
    bodies = [
        b'"%d' % index + b"x" * size + b'"' for index, size in enumerate((70_000, 3, 9 << 20))
    ]
    client = connect()
    client.send(request("POST", "/stream"))
    for body in bodies:
        source.push(body)
    source.finish()
    assert client.answer()[2] == b"".join(sse.events(bodies))


# ------------------------------------------------------------------ drain


def test_R26_D_47_a_running_stream_ends_typed_before_the_grace_is_over(
    harness, stream, connect
) -> None:
    client = connect()
    client.send(request("POST", "/stream"))
    stream.push(CHUNK)
    client.until(EVENT)
    harness.drain.begin(0.2)
    stream.push(CHUNK)
    client.until(EVENT)
    last = client.rest()
    assert inner(last[last.index(b"data: ") : last.rindex(b"\r\n0\r\n")])["error_type"] == (
        "ServerStopping"
    )
    assert last.endswith(b"0\r\n\r\n")
    assert harness.outcomes == [Outcome.ERROR]


def test_R26_a_stream_that_ends_in_time_ends_well_and_closes(harness, stream, connect) -> None:
    client = connect()
    client.send(request("POST", "/stream"))
    stream.push(CHUNK)
    client.until(EVENT)
    harness.drain.begin(5)
    stream.finish()
    assert client.rest() == b"\r\n0\r\n\r\n"
    assert harness.outcomes == [Outcome.SUCCESS]


def test_a_shortened_grace_counts() -> None:
    drain = Drain()
    streams = OpenStreams(drain)
    source = new_stream()
    streams.add(source)
    drain.begin(60)
    drain.begin(0.01)
    with pytest.raises(Exception, match="server is stopping"):
        source.take()
    late = new_stream()
    streams.add(late)
    with pytest.raises(Exception, match="server is stopping"):
        late.take()


# ------------------------------------------------------------------ without a socket


class Wsgi:
    """A server that knows nothing but WSGI."""

    def __init__(self, source: Stream) -> None:
        self.plain: Any = "not begun"
        self.outcomes: list[Outcome] = []
        answer = StreamResponse(
            source, sse.events, error_event, before_head, self.outcomes.append, 30
        )
        self.pieces = iterate(answer, OpenStreams(Drain()), self._begin)

    def _begin(self, plain: Any) -> None:
        self.plain = plain


def test_another_server_gets_an_iterable() -> None:
    source = new_stream()
    server = Wsgi(source)
    source.push(CHUNK)
    assert next(server.pieces) == EVENT
    assert server.plain is None
    source.finish()
    assert list(server.pieces) == []
    assert server.outcomes == [Outcome.SUCCESS]
    assert source.closed


def test_another_server_gets_errors_and_refusals() -> None:
    source = new_stream()
    server = Wsgi(source)
    source.abort(PluginDied("plugin died"))
    assert inner(next(server.pieces))["error_type"] == "PluginDied"
    assert list(server.pieces) == []
    refused = new_stream()
    server = Wsgi(refused)
    refused.abort(Overloaded("busy", retry_after=1))
    assert b'"code":-500' in next(server.pieces)
    assert server.plain.status == 429
    server.pieces.close()


def test_another_server_that_stops_early_closes_the_call() -> None:
    source = new_stream()
    server = Wsgi(source)
    source.push(CHUNK)
    next(server.pieces)
    server.pieces.close()
    assert source.closed
    assert server.outcomes == [Outcome.CLIENT_LEFT]


def test_the_event_loop_is_not_blocked_by_a_watch(harness, stream, connect) -> None:
    """A watch that peeked in the event loop without care would block everything here."""
    client = connect()
    client.send(request("POST", "/stream"))
    stream.push(CHUNK)
    client.until(EVENT)
    ticked = Event()
    gevent.spawn_later(0.01, ticked.set)
    client.send(b"G")  # readable, but no end
    assert ticked.wait(patience(1))
    stream.finish()
    client.until(b"0\r\n\r\n")
