"""Dify answers: real HTTP against a small inner API, every way in which it can go wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from tests.fake_dify import KEY, FakeDify, fake_dify, stream
from tests.patience import patience
from tests.runtime.tls import tls_server
from tests.unit.backcalls.conftest import TENANT, RecordedAnswer, back_call, session
from tidegate.backcalls import KINDS, BackCall, Caller, Desk, open_target
from tidegate.settings import Settings
from tidegate.wire.inner_api import frame

CHUNK = {"model": "m", "delta": {"index": 0, "message": {"role": "assistant", "content": "hi"}}}
REQUEST = {
    "provider": "p", "model": "m", "mode": "chat", "texts": ["a"], "documents": [], "docs": ["d"],
    "input_type": "query", "query": "q", "content_text": "c", "voice": "v", "file": "00",
    "text": "t", "tool_type": "builtin", "tool": "t", "parameters": [], "classes": [],
    "app_id": "a", "filename": "f", "mimetype": "x/y", "structured_output_schema": {},
}  # fmt: skip
OF_DIFY = sorted(KINDS.keys() - {"storage"})


@pytest.fixture
def dify() -> Iterator[FakeDify]:
    with fake_dify() as made:
        yield made


@pytest.fixture
def desk(dify: FakeDify) -> Iterator[Desk]:
    yield from opened(dify)


def opened(dify: FakeDify, **variables: object) -> Iterator[Desk]:
    given = {name: str(value) for name, value in variables.items()}
    made = open_target(Settings.load({**dify.environ, **given}))
    yield made
    made.close()


@pytest.fixture
def strict(dify: FakeDify) -> Iterator[Desk]:
    """With short limits."""
    yield from opened(
        dify,
        DIFY_BACKWARDS_INVOCATION_READ_TIMEOUT=150,
        DIFY_BACKWARDS_INVOCATION_WRITE_TIMEOUT=150,
        RESPONSE_MAX_BUFFER_SIZE=1000,
    )


def ask(desk: Desk, call: BackCall) -> RecordedAnswer:
    answer = RecordedAnswer()
    desk.invoke(call, answer)
    return answer


# --------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("type", OF_DIFY)
def test_each_type_is_asked_at_its_place_and_answered(desk, dify, caller, type):
    kind = KINDS[type]
    data = {"data": {"x": 1}} if kind.twice else {"x": 1}
    dify.on(kind.path, stream({"x": 1}) if kind.stream else lambda exchange: data)
    answer = ask(desk, back_call(caller, type, REQUEST)).wait()
    assert (answer.pieces, answer.error, answer.ends) == ([{"x": 1}], None, 1)
    assert answer.streamed == [kind.stream]
    (call,) = dify.calls
    assert call.path == kind.path
    texts = dict.fromkeys(kind.texts, "")
    assert call.body == {**texts, **REQUEST, "tenant_id": TENANT, "user_id": "u1", "type": type}
    assert call.headers["x-inner-api-key"] == KEY
    assert call.headers["content-type"] == "application/json"


@pytest.mark.parametrize("type", OF_DIFY)
def test_a_request_without_what_its_type_needs_never_leaves(desk, dify, caller, type):
    name = KINDS[type].required[0]
    answer = ask(desk, back_call(caller, type, {**REQUEST, name: None})).wait()
    assert answer.error.startswith("unmarshal backwards invoke request failed: ")
    assert name in answer.error
    assert answer.typed["error_type"] == "BackCallInvalid"
    assert dify.calls == []


@pytest.mark.parametrize("given", [{}, {"conversation_id": None, "user": None}])
def test_texts_that_an_app_call_leaves_out_are_empty_ones(desk, dify, caller, given):
    dify.on("invoke/app", stream({"x": 1}))
    ask(desk, back_call(caller, "app", {**REQUEST, **given})).wait()
    (call,) = dify.calls
    assert (call.body["conversation_id"], call.body["user"]) == ("", "")


@pytest.mark.parametrize(
    ("type", "field"),
    [("tool", "tool_type"), ("app", "response_mode"), ("multimodal_embedding", "input_type")],
)
def test_a_value_that_dify_does_not_know_never_leaves(desk, dify, caller, type, field):
    answer = ask(desk, back_call(caller, type, {**REQUEST, field: "zzz"})).wait()
    assert f"{field} takes one of " in answer.error
    assert dify.calls == []


def test_bytes_pass_both_ways(desk, dify, caller):
    chunk = b'{"data":{"n": 12345678901234567890, "f":1.0,\n"new":{"b":"\\u2028"}},"error":""}'
    dify.on(
        "invoke/llm",
        lambda exchange: (
            (exchange.begin(), exchange.piece(frame(chunk)), exchange.finish())[3:] or None
        ),
    )
    request = b'{"provider":"p","model":"m","mode":"chat","big":98765432109876543210,"f":2.50}'
    answer = ask(desk, back_call(caller, "llm", request)).wait()
    assert answer.raw == [b'{"n": 12345678901234567890, "f":1.0, "new":{"b":"\\u2028"}}']
    assert b'"big":98765432109876543210,"f":2.50' in dify.calls[0].raw


def test_who_asks_cannot_be_forged(desk, dify, caller):
    dify.on("invoke/moderation", lambda exchange: {"result": True})
    forged = {**REQUEST, "tenant_id": "other", "user_id": "root", "type": "encrypt"}
    ask(desk, back_call(caller, "moderation", forged)).wait()
    body = dify.calls[0].body
    assert (body["tenant_id"], body["user_id"], body["type"]) == (TENANT, "u1", "moderation")


def test_the_trace_is_the_callers_or_the_sessions(desk, dify, caller):
    dify.on("invoke/moderation", lambda exchange: {"result": True})
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-00"
    ask(desk, back_call(caller, "moderation", REQUEST, of=session(trace=trace))).wait()
    ask(desk, back_call(caller, "moderation", REQUEST)).wait()
    first, second = (call.headers["traceparent"] for call in dify.calls)
    assert first.startswith("00-" + "ab" * 16 + "-")
    assert first.endswith("-01")
    assert second.startswith("00-11111111222243338444555555555555-")


def test_proxies_of_the_environment_are_ignored(desk, dify, caller, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    dify.on("invoke/moderation", lambda exchange: {"result": True})
    assert ask(desk, back_call(caller, "moderation", REQUEST)).wait().error is None


def test_a_base_path_is_kept(dify, caller):
    settings = {**dify.environ, "DIFY_INNER_API_URL": dify.url + "/dify/"}
    desk = open_target(Settings.load(settings))
    dify.on("/dify/inner/api/invoke/moderation", lambda exchange: {"result": True})
    assert ask(desk, back_call(caller, "moderation", REQUEST)).wait().error is None
    desk.close()


# --------------------------------------------------------------------------- how it fails


def test_an_error_of_dify_is_told(desk, dify, caller):
    dify.on(
        "invoke/llm",
        lambda exchange: (
            (
                exchange.begin(),
                exchange.send(CHUNK),
                exchange.send(None, "no quota"),
                exchange.finish(),
            )[4:]
            or None
        ),
    )
    answer = ask(desk, back_call(caller, "llm", REQUEST)).wait()
    assert answer.pieces == [CHUNK]
    assert answer.error == "read llm model failed: request failed: no quota"
    dify.on("fetch/app/info", lambda exchange: exchange.json({"data": None, "error": "no app"}))
    answer = ask(desk, back_call(caller, "fetch_app", REQUEST)).wait()
    assert answer.error == "fetch app failed: request failed: no app"


@pytest.mark.parametrize("type", ["llm", "moderation"])
@pytest.mark.parametrize("status", ["404 NOT FOUND", "500 OOPS", "302 FOUND", "204 NOTHING"])
def test_the_status_of_dify_is_honoured(desk, dify, caller, type, status):
    dify.on(KINDS[type].path, lambda exchange: exchange.json({"message": "why"}, status))
    answer = ask(desk, back_call(caller, type, REQUEST)).wait()
    number = int(status[:3])
    assert f"request failed with status code: {number} and respond with: " in answer.error
    assert answer.error.startswith(KINDS[type].failed)
    assert answer.typed == {"error_type": "BackCallFailed", "args": {"status": number}}
    if number != 204:
        assert '{"message": "why"}' in answer.error


def test_D_38_the_inner_key_is_in_no_log_and_no_error(dify, caller, caplog):
    caplog.set_level("DEBUG")
    wrong = {**dify.environ, "DIFY_INNER_API_KEY": "wrong-inner-key"}
    desk = open_target(Settings.load(wrong))
    answer = ask(desk, back_call(caller, "llm", REQUEST)).wait()
    assert "404" in answer.error
    assert "wrong-inner-key" not in caplog.text + answer.error + str(answer.typed)
    desk.close()


def test_nobody_there_is_told_with_the_address(caller):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    desk = open_target(Settings.load({"DIFY_INNER_API_URL": url, "DIFY_INNER_API_KEY": "k"}))
    answer = ask(desk, back_call(caller, "app", REQUEST)).wait()
    assert answer.error.startswith("invoke app failed: Dify's inner API at 127.0.0.1:")
    assert "refused" in answer.error
    desk.close()


def test_an_answer_that_breaks_off_is_an_error(desk, dify, caller):
    def handle(exchange: Any) -> None:
        exchange.begin()
        exchange.send(CHUNK)
        exchange.sock.shutdown(socket.SHUT_RDWR)

    dify.on("invoke/llm", handle)
    answer = ask(desk, back_call(caller, "llm", REQUEST)).wait()
    assert answer.pieces == [CHUNK]
    assert answer.error.startswith("read llm model failed: ")


def test_a_short_body_is_an_error(desk, dify, caller):
    def handle(exchange: Any) -> None:
        exchange.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        exchange.sock.shutdown(socket.SHUT_RDWR)

    dify.on("invoke/moderation", handle)
    assert ask(desk, back_call(caller, "moderation", REQUEST)).wait().error is not None


def test_an_answer_that_is_no_frames_is_an_error(desk, dify, caller):
    dify.on("invoke/llm", lambda exchange: exchange.json({"data": CHUNK}))
    answer = ask(desk, back_call(caller, "llm", REQUEST)).wait()
    assert answer.error == "read llm model failed: magic number mismatch: 123"


def test_answers_over_the_limit_are_refused(strict, dify, caller):
    dify.on("invoke/llm", stream({"x": "y" * 1000}))
    answer = ask(strict, back_call(caller, "llm", REQUEST)).wait()
    assert "data length is too long: 1" in answer.error
    dify.on("invoke/moderation", lambda exchange: {"x": "y" * 1000})
    answer = ask(strict, back_call(caller, "moderation", REQUEST)).wait()
    assert "longer than 1000 bytes" in answer.error


def test_what_came_before_a_broken_frame_is_delivered(desk, dify, caller):
    def handle(exchange: Any) -> None:
        exchange.begin()
        good = frame(json.dumps({"data": CHUNK, "error": ""}).encode())
        exchange.piece(good + b"\x0e" + good[1:])
        exchange.finish()

    dify.on("invoke/llm", handle)
    answer = ask(desk, back_call(caller, "llm", REQUEST)).wait()
    assert answer.pieces == [CHUNK]
    assert answer.error == "read llm model failed: magic number mismatch: 14"


def test_a_stream_without_length_ends_with_its_connection(desk, dify, caller):
    def handle(exchange: Any) -> None:
        body = frame(json.dumps({"data": CHUNK, "error": ""}).encode())
        exchange.sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        exchange.sock.shutdown(socket.SHUT_WR)

    dify.on("invoke/llm", handle)
    answer = ask(desk, back_call(caller, "llm", REQUEST)).wait()
    assert (answer.pieces, answer.error) == ([CHUNK], None)


def test_a_frame_in_pieces_of_one_byte_is_put_together(desk, dify, caller):
    def handle(exchange: Any) -> None:
        exchange.begin()
        for byte in frame(json.dumps({"data": CHUNK, "error": ""}).encode()):
            exchange.piece(bytes([byte]))
        exchange.finish()

    dify.on("invoke/llm", handle)
    assert ask(desk, back_call(caller, "llm", REQUEST)).wait().pieces == [CHUNK]


# --------------------------------------------------------------------------- time


def test_T15_the_read_limit_is_one_of_silence_not_of_length(strict, dify, caller):
    dify.on("invoke/llm", stream(*[CHUNK] * 8, pause=0.05))  # 400 ms in all
    answer = ask(strict, back_call(caller, "llm", REQUEST)).wait()
    assert answer.error is None
    assert len(answer.pieces) == 8


@pytest.mark.parametrize("keeps_alive", [True, False], ids=["kept", "closed"])
def test_T15_an_answer_that_begins_late_is_waited_for(strict, dify, caller, keeps_alive):
    """Dify runs a blocking app to its end before it sends a head; the call's deadline holds."""
    dify.keeps_alive = keeps_alive

    def handle(exchange: Any) -> Any:
        gevent.sleep(0.5)
        return {"answer": "late"}

    dify.on("invoke/moderation", handle)
    answer = ask(strict, back_call(caller, "moderation", REQUEST)).wait(5)
    assert (answer.error, answer.pieces) == (None, [{"answer": "late"}])


@pytest.mark.parametrize("keeps_alive", [True, False], ids=["kept", "closed"])
def test_silence_ends_a_stream_and_says_whose_limit_it_was(strict, dify, caller, keeps_alive):
    release = Event()
    dify.keeps_alive = keeps_alive

    def handle(exchange: Any) -> None:
        exchange.begin()
        for _ in range(2):
            exchange.send(CHUNK)
        release.wait()

    dify.on("invoke/llm", handle)
    answer = ask(strict, back_call(caller, "llm", REQUEST)).wait(patience(3))
    release.set()
    assert len(answer.pieces) == 2
    assert "DIFY_BACKWARDS_INVOCATION_READ_TIMEOUT" in answer.error
    assert answer.typed["error_type"] == "IdleTimeout"


def test_a_dify_that_does_not_take_the_request_is_told(caller):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        environ = {"DIFY_INNER_API_URL": url, "DIFY_BACKWARDS_INVOCATION_WRITE_TIMEOUT": "150"}
        desk = open_target(Settings.load(environ))
        big = {**REQUEST, "file": "0" * (16 << 20)}
        answer = ask(desk, back_call(caller, "speech2text", big)).wait(5)
        assert "DIFY_BACKWARDS_INVOCATION_WRITE_TIMEOUT" in answer.error
        desk.close()


def test_an_early_refusal_of_a_long_request_is_understood(desk, dify, caller):
    """The answer comes while the body is still being sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(100)
                sock.sendall(b"HTTP/1.1 413 TOO LARGE\r\nContent-Length: 3\r\n\r\nbig")
                gevent.sleep(0.2)

        greenlet = gevent.spawn(refuse)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        other = open_target(Settings.load({"DIFY_INNER_API_URL": url}))
        big = {**REQUEST, "file": "0" * (1 << 20)}
        answer = ask(other, back_call(caller, "speech2text", big)).wait(5)
        assert answer.ends == 1
        assert answer.error is not None
        greenlet.join()
        other.close()


# --------------------------------------------------------------------------- connections


@pytest.mark.parametrize("keeps_alive", [True, False])
def test_an_abandoned_call_aborts_its_request_at_once(desk, dify, caller, keeps_alive):
    went = Event()
    dify.keeps_alive = keeps_alive

    def handle(exchange: Any) -> None:
        exchange.begin()
        exchange.send(CHUNK)
        exchange.sock.recv(1)  # until the client closes
        went.set()

    dify.on("invoke/llm", handle)
    answer = ask(desk, back_call(caller, "llm", REQUEST))
    assert answer.responded.wait(5)
    answer.on_abandoned()
    assert went.wait(patience(1))
    assert desk.running == 0


def test_D_24_a_plugin_that_does_not_read_holds_dify_back_and_loses_nothing(desk, dify, caller):
    sent = []

    def handle(exchange: Any) -> None:
        exchange.begin()
        for number in range(200):
            exchange.send({"n": number, "x": "y" * (64 << 10)})
            sent.append(number)
        exchange.finish()

    dify.on("invoke/llm", handle)
    answer = RecordedAnswer(hold=Event())
    desk.invoke(back_call(caller, "llm", REQUEST), answer)
    gevent.sleep(0.3)
    assert 0 < len(sent) < 150  # the sockets' buffers are full
    answer.hold.set()
    answer.wait(20)
    assert [piece["n"] for piece in answer.pieces] == list(range(200))


def test_connections_are_used_again(desk, dify, caller):
    dify.on("invoke/moderation", lambda exchange: {"result": True})
    dify.on("invoke/llm", stream(CHUNK))
    for _ in range(5):
        for type in ("moderation", "llm"):
            assert ask(desk, back_call(caller, type, REQUEST)).wait().error is None
    assert dify.connections == 1


def test_a_connection_that_dify_closed_meanwhile_is_not_used_again(desk, dify, caller):
    def handle(exchange: Any) -> dict[str, bool]:
        gevent.spawn_later(0.01, exchange.sock.shutdown, socket.SHUT_RDWR)
        return {"result": True}

    dify.on("invoke/moderation", handle)
    for _ in range(3):
        assert ask(desk, back_call(caller, "moderation", REQUEST)).wait().error is None
        gevent.sleep(0.05)
    assert dify.connections == 3


def test_a_connection_that_nobody_uses_is_closed(desk, dify, caller):
    gone = Event()

    def handle(exchange: Any) -> None:
        exchange.json({"data": {"result": True}, "error": ""})
        exchange.sock.recv(1)
        gone.set()

    dify.on("invoke/moderation", handle)
    ask(desk, back_call(caller, "moderation", REQUEST)).wait()
    assert gone.wait(patience(3))


def test_many_at_once_each_have_a_connection(desk, dify, caller):
    everybody = Event()

    def handle(exchange: Any) -> dict[str, str]:
        if dify.open == 100:
            everybody.set()
        everybody.wait()
        return {"text": exchange.body["text"]}

    dify.on("invoke/moderation", handle)
    answers = [
        ask(desk, back_call(caller, "moderation", {**REQUEST, "text": str(number)}))
        for number in range(100)
    ]
    texts = [answer.wait().pieces[0]["text"] for answer in answers]
    assert texts == [str(number) for number in range(100)]


def test_https_is_verified(caller, tmp_path):
    """A certificate that nobody vouches for ends the call with a word about it."""
    with tls_server(tmp_path) as (url, _):
        desk = open_target(Settings.load({"DIFY_INNER_API_URL": url}))
        answer = ask(desk, back_call(caller, "moderation", REQUEST)).wait(5)
        assert "certificate" in answer.error.lower()
        desk.close()


def test_a_caller_without_permission_costs_dify_nothing(desk, dify):
    ask(desk, back_call(Caller("a/b:1@c", {}), "llm", REQUEST)).wait()
    assert dify.connections == 0


@pytest.mark.parametrize("given", ["", "x", f"00-{'x' * 32}-{'0' * 16}-01", "00-é\n-1-2"])
def test_a_trace_that_is_none_does_not_go_on_to_dify(desk, dify, caller, given):
    dify.on("invoke/moderation", lambda exchange: {"result": True})
    ask(desk, back_call(caller, "moderation", REQUEST, of=session(trace=given))).wait()
    [sent] = dify.calls
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", sent.headers["traceparent"])
