"""Functions that answer as the test wants: cuts, refusals, retries, batches, transactions."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.queue import Queue
from gevent.server import StreamServer

from tests.fake_dify import fake_dify
from tests.patience import patience
from tests.serverless import ADMIN, TENANT, ServerlessWorld, serverless_world
from tidegate.errors import StartRefused
from tidegate.hosts.serverless.places import Places
from tidegate.runtime import home
from tidegate.wire.serverless import is_signed, sign_session

WEATHER = "acme/weather:0.0.1@" + "ab" * 32
EMBED = "acme/embed:0.0.1@" + "cd" * 32
DECLARATION = {
    "tool": {"identity": {"name": "weather"}, "tools": []},
    "resource": {"permission": {"storage": {"enabled": True, "size": 1048576}}},
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Asked:
    """One request that the function got."""

    path: str
    headers: dict[str, str]
    body: bytes
    socket: Any

    @property
    def line(self) -> dict[str, Any]:
        return json.loads(self.body)

    def event(self, type: str, data: Any) -> bytes:
        session = self.line["session_id"]
        message = {"type": type, "data": data}
        event = {"event": "session", "session_id": session, "data": message}
        return json.dumps(event).encode() + b"\n\n"

    def begin(self) -> None:
        self.socket.sendall(HEAD)

    def chunk(self, data: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def say(self, text: str) -> None:
        message = {"type": "text", "message": {"text": text}, "meta": None}
        self.chunk(self.event("stream", message))

    def end(self) -> None:
        self.chunk(self.event("end", {}))
        self.socket.sendall(b"0\r\n\r\n")

    def plain(self, status: str, body: bytes = b"", headers: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.socket.sendall(head.encode() + body)


@dataclass
class Function:
    """An HTTP server whose answers are the test's."""

    script: Callable[[Asked], None] = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    hung_up: Event = field(default_factory=Event)
    connections: int = 0

    def __post_init__(self) -> None:
        self.server = StreamServer(("127.0.0.1", 0), self._serve)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/base"

    def _serve(self, sock: Any, address: Any) -> None:
        self.connections += 1
        data = b""
        with sock:
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        piece = sock.recv(1 << 16)
                    except OSError:
                        piece = b""
                    if not piece:
                        self.hung_up.set()
                        return
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                first, *lines = head.decode().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
                length = int(headers.get("content-length", "0"))
                while len(data) < length:
                    data += sock.recv(1 << 16)
                body, data = data[:length], data[length:]
                asked = Asked(first.split(" ")[1], headers, body, sock)
                self.asked.append(asked)
                if self.script(asked) is not None:
                    return


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    limits = {
        "MAX_SERVERLESS_REQUEST_BYTES": 3000,
        "PLUGIN_MAX_EXECUTION_TIMEOUT": 4,
        "PLUGIN_RUNTIME_MAX_BUFFER_SIZE": 1 << 20,
    }
    with serverless_world(tmp_path_factory.mktemp("functions"), **limits) as made:
        made.function = Function()
        made.forge(WEATHER, DECLARATION, made.function.url)
        made.forge(EMBED, {"model": {"provider": "embed"}}, made.function.url)
        made.function.script = _answer
        assert call(made).texts == ["sunny"]
        yield made
        made.function.server.stop()


@pytest.fixture
def world(whole):
    whole.function.script = _answer
    assert call(whole).texts  # so that the catalogue looks, and goes on looking
    whole.function.asked.clear()
    whole.function.hung_up.clear()
    yield whole
    whole.serverless._pool.close()  # or each test would wait for it
    return whole


def _answer(asked: Asked) -> None:
    asked.begin()
    asked.say("sunny")
    asked.end()


def call(world: ServerlessWorld, action: str = "tool/invoke", **more: Any):
    data = {"provider": "weather", "tool": "now", "tool_parameters": {}, "credentials": {}, **more}
    return world.dispatch("acme/weather", action, data)


# --------------------------------------------------------------------------- requests


def test_a_request_is_the_line_of_the_session_under_a_signed_id(world):
    assert call(world).texts == ["sunny"]
    (asked,) = world.function.asked
    assert asked.path == "/base/invoke?action=invoke_tool"
    assert asked.headers["accept"] == "text/event-stream"
    assert asked.headers["content-type"] == "application/json"
    session = asked.headers["dify-plugin-session-id"]
    assert asked.line["session_id"] == session
    assert is_signed(home.session_key(world.settings), session)
    assert asked.line["data"]["tool"] == "now"


def test_calls_in_a_row_use_one_connection(world):
    before = world.function.connections
    for _ in range(5):
        assert call(world).texts == ["sunny"]
    assert world.function.connections - before <= 1


def test_chunks_arrive_while_the_function_still_works(world):
    go = Event()

    def script(asked: Asked) -> None:
        asked.begin()
        asked.say("first")
        assert go.wait(10)
        asked.end()

    world.function.script = script
    body = json.dumps({"data": {"provider": "weather", "tool": "now"}}).encode()
    stream = socket.create_connection(world.address)
    head = (
        f"POST /plugin/{TENANT}/dispatch/tool/invoke HTTP/1.1\r\nHost: x\r\nX-Api-Key: secret\r\n"
        f"X-Plugin-ID: acme/weather\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with stream:
        stream.settimeout(10)
        stream.sendall(head.encode() + body)
        assert b"first" in stream.recv(1 << 16)
        go.set()


# --------------------------------------------------------------------------- failures


@pytest.mark.parametrize("how", ["chunk", "clean", "middle"])
def test_a_cut_response_is_an_error(world, how):
    def script(asked: Asked) -> Any:
        asked.begin()
        asked.say("half")
        if how == "clean":
            asked.socket.sendall(b"0\r\n\r\n")
            return None
        if how == "middle":
            asked.socket.sendall(b'ff\r\n{"event":"sess')
        return "hang up"

    world.function.script = script
    failed = call(world)
    assert failed.texts == ["half"]
    assert failed.error["error_type"] in ("PluginRuntimeError", "PluginDaemonInnerError")
    assert len(world.function.asked) == 1


def test_a_response_without_an_event_is_an_error(world):
    world.function.script = lambda asked: asked.plain("200 OK")
    error = call(world).error
    assert error["error_type"] == "PluginRuntimeError"
    assert "no valid session response" in error["message"]


@pytest.mark.parametrize(
    ("status", "headers", "body", "text"),
    [
        ("500 Internal Server Error", "", b"'event'", "500 Internal Server Error"),
        ("429 Too Many Requests", "x-amzn-ErrorType: TooManyRequestsException\r\n", b"", "TooMany"),
        ("200 OK", "x-amzn-ErrorType: Unhandled\r\nx-amzn-RequestId: r7\r\n", b"{}", "Unhandled"),
        ("403 Forbidden", "", b'{"errorType":"Denied","errorMessage":"no"}', "Denied: no"),
        ("502 Bad Gateway", "", b"", "502 Bad Gateway"),
    ],
)
def test_what_the_platform_says_is_the_error_and_is_asked_once(world, status, headers, body, text):
    world.function.script = lambda asked: asked.plain(status, body, headers)
    error = call(world).error
    assert error["error_type"] == "PluginRuntimeError"
    assert f"Plugin runtime request failed: {text}" in error["message"]
    assert error["args"]["status_code"] == int(status[:3])
    if "r7" in headers:
        assert error["args"]["request_id"] == "r7"
    assert len(world.function.asked) == 1


@pytest.mark.parametrize(
    ("line", "error_type"),
    [
        (b'{"errorType":"Runtime.ExitError","errorMessage":"gone"}\n', "PluginRuntimeError"),
        (b"<html>oops</html>\n", "PluginDaemonInnerError"),
        (b"x" * 5000 + b"\n", "PluginDaemonInnerError"),
    ],
)
def test_a_line_that_is_no_event_is_an_error(world, line, error_type):
    def script(asked: Asked) -> str:
        asked.begin()
        asked.chunk(line)
        gevent.sleep(0.05)
        return "hang up"

    world.function.script = script
    assert call(world).error["error_type"] == error_type


def test_a_back_call_inside_the_answer_is_not_supported(world):
    def script(asked: Asked) -> None:
        asked.begin()
        asked.chunk(asked.event("invoke", {"type": "llm", "backwards_request_id": "1"}))
        asked.end()

    world.function.script = script
    assert call(world).error["error_type"] == "serverless_event_not_supported"


@pytest.mark.leaks("the plugin's log stays open")
def test_log_lines_go_to_the_plugins_log(world):
    def script(asked: Asked) -> None:
        asked.begin()
        told = {"event": "log", "data": {"level": "WARN", "message": "careful", "timestamp": 1}}
        asked.chunk(json.dumps(told).encode() + b"\n")
        asked.end()

    world.function.script = script
    assert call(world).error is None
    log = world.settings.home.logs / "plugins/acme/weather.log"
    assert "warn careful" in log.read_text()


# --------------------------------------------------------------------------- retries


def test_a_502_is_tried_again_where_that_does_no_harm(world):
    def script(asked: Asked) -> None:
        if len(world.function.asked) < 2:
            asked.plain("502 Bad Gateway")
        else:
            asked.begin()
            asked.chunk(asked.event("stream", {"result": True}))
            asked.end()

    world.function.script = script
    done = call(world, "tool/validate_credentials")
    assert done.items == [{"result": True}]
    assert len(world.function.asked) == 2


def test_R_a_request_that_may_have_arrived_is_not_sent_twice(world):
    world.function.script = lambda asked: "hang up without a word"
    error = call(world).error
    assert error["error_type"] == "PluginDaemonInnerError"
    assert len(world.function.asked) == 1


@pytest.mark.limit(60, "waits between attempts")
def test_a_function_that_cannot_be_reached_is_tried_three_times(world):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        identifier = "acme/nowhere:0.0.1@" + "ef" * 32
        world.forge(identifier, DECLARATION, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        data = {"provider": "weather", "tool": "now"}
        error = world.dispatch("acme/nowhere", "tool/invoke", data).error
    assert error["error_type"] == "PluginDaemonInnerError"
    assert "all 3 attempts failed" in error["message"]


def test_a_function_that_comes_up_meanwhile_is_reached(world):
    function = Function(script=_answer)
    port = function.server.server_port
    function.server.stop()
    identifier = "acme/late:0.0.1@" + "ef" * 32
    world.forge(identifier, DECLARATION, f"http://127.0.0.1:{port}")
    late = StreamServer(("127.0.0.1", port), function._serve)
    later = gevent.spawn_later(0.2, late.start)
    data = {"provider": "weather", "tool": "now"}
    assert world.dispatch("acme/late", "tool/invoke", data).texts == ["sunny"]
    later.join()
    late.stop()


# --------------------------------------------------------------------------- ends


@pytest.mark.limit(30, "waits for the deadline")
def test_a_call_ends_at_its_deadline_and_its_request_is_aborted(world):
    world.function.script = lambda asked: (asked.begin(), asked.say("one"), None)[2]
    late = call(world)
    assert late.texts == ["one"]
    assert late.error["error_type"] == "DeadlineExceeded"
    assert world.function.hung_up.wait(5)


def test_a_caller_that_leaves_aborts_the_request(world):
    world.function.script = lambda asked: (asked.begin(), asked.say("one"), None)[2]
    body = json.dumps({"data": {"provider": "weather", "tool": "now"}}).encode()
    head = (
        f"POST /plugin/{TENANT}/dispatch/tool/invoke HTTP/1.1\r\nHost: x\r\nX-Api-Key: secret\r\n"
        f"X-Plugin-ID: acme/weather\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(world.address) as stream:
        stream.sendall(head.encode() + body)
        assert b"one" in stream.recv(1 << 16)
    assert world.function.hung_up.wait(5)


# --------------------------------------------------------------------------- too large


def embed(asked: Asked) -> None:
    texts = asked.line["data"]["texts"]
    asked.begin()
    if asked.line["data"]["action"] == "get_text_embedding_num_tokens":
        answer: dict[str, Any] = {"num_tokens": [len(text) for text in texts]}
    else:
        usage = {
            "tokens": len(texts), "total_tokens": len(texts), "unit_price": "0.1",
            "price_unit": "0.001", "total_price": "0.25", "currency": "USD", "latency": 0.5,
        }  # fmt: skip
        answer = {"model": "e", "embeddings": [[float(text[:3])] for text in texts], "usage": usage}
    asked.chunk(asked.event("stream", answer))
    asked.end()


def embedding(world: ServerlessWorld, action: str, texts: list[str]):
    data = {
        "provider": "embed", "model": "e", "model_type": "text-embedding", "credentials": {},
        "texts": texts, "input_type": "document",
    }  # fmt: skip
    return world.dispatch("acme/embed", f"text_embedding/{action}", data)


def test_embeddings_over_the_limit_go_in_batches_and_come_back_as_one(world):
    world.function.script = embed
    texts = [f"{number:03}" + "x" * 500 for number in range(12)]
    done = embedding(world, "invoke", texts)
    (answer,) = done.items
    assert answer["embeddings"] == [[float(number)] for number in range(12)]
    batches = len(world.function.asked)
    assert batches > 2
    assert all(len(asked.body) <= 3000 for asked in world.function.asked)
    assert answer["usage"]["total_tokens"] == 12
    assert answer["usage"]["total_price"] == str(batches * 0.25)
    (counts,) = embedding(world, "num_tokens", texts).items
    assert counts["num_tokens"] == [503] * 12


def test_a_text_that_no_call_takes_is_refused_with_its_index(world):
    error = embedding(world, "invoke", ["000", "x" * 5000]).error
    assert error["error_type"] == "MessageTooLarge"
    assert "ServerlessPayloadTooLarge: action=invoke_text_embedding" in error["message"]
    assert "item_index=1" in error["message"]
    assert world.function.asked == []


def test_batches_that_do_not_fit_together_are_refused(world):
    def script(asked: Asked) -> None:
        asked.begin()
        asked.chunk(asked.event("stream", {"model": "e", "embeddings": [], "usage": {}}))
        asked.end()

    world.function.script = script
    error = embedding(world, "invoke", ["000" + "x" * 1200] * 5).error
    assert "ServerlessBatchResultMismatch" in error["message"]
    assert "reason=embedding_count" in error["message"]


def test_answers_of_batches_are_kept_up_to_the_length_of_a_line(world):
    sent: list[int] = []

    def script(asked: Asked) -> bool | None:
        asked.begin()
        chunk = asked.event("stream", {"model": "e", "embeddings": [], "pad": "x" * 60_000})
        try:
            for _ in range(400):  # 24 MB, if nobody stops it
                asked.chunk(chunk)
                sent.append(len(chunk))
        except OSError:
            return True
        return None

    world.function.script = script
    error = embedding(world, "invoke", ["000" + "x" * 1200] * 5).error
    assert (error["error_type"], len(world.function.asked)) == ("MessageTooLarge", 1)
    assert error["args"]["setting"] == "PLUGIN_RUNTIME_MAX_BUFFER_SIZE"
    assert sum(sent) < 20 << 20  # what lay in sockets and buffers counts, too


def test_any_other_request_over_the_limit_is_refused(world):
    error = call(world, tool_parameters={"text": "x" * 4000}).error
    assert error["message"].startswith("ServerlessPayloadTooLarge: action=invoke_tool")
    assert world.function.asked == []


# --------------------------------------------------------------------------- transactions

PLACE = "/backwards-invocation/transaction"


def invoke(session: str, request: Any = None, type: str = "storage") -> bytes:
    asked = request or {"opt": "get", "key": "nothing"}
    data = {"type": type, "backwards_request_id": "r1", "request": asked}
    message = {"type": "invoke", "data": data}
    return json.dumps({"event": "session", "session_id": session, "data": message}).encode()


@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"[]", b'{"event":"heartbeat","session_id":null,"data":{}}', b'{"a":1}'],
)
def test_D_23_what_is_no_session_event_is_refused_at_once(world, body):
    with gevent.Timeout(patience(2)):
        status, _, _ = world.ask("POST", PLACE, body)
    assert status == 400


@pytest.mark.parametrize("where", ["header", "body", "both"])
def test_D_31_a_session_that_was_not_signed_here_is_refused(world, where):
    forged = sign_session(b"another key", "5b0d6f3e-0000-4000-8000-000000000000")
    headers = {} if where == "body" else {"Dify_Plugin_Session_ID": forged}
    body = b"" if where == "header" else invoke(forged)
    status, answer, _ = world.ask("POST", PLACE, body, **headers)
    assert status == 400
    first = json.loads(answer.split(b"\n\n")[0])
    assert first["event"] == "backwards_response"
    assert first["data"]["event"] == "error"
    assert first["data"]["error_type"] == "SessionNotFound"


def test_a_signed_session_that_is_over_is_refused(world):
    assert call(world).texts == ["sunny"]
    session = world.function.asked[0].line["session_id"]
    status, answer, _ = world.ask("POST", PLACE, invoke(session))
    assert status == 400
    assert b"SessionNotFound" in answer


def test_a_body_over_6_MiB_is_refused(world):
    with socket.create_connection(world.address) as stranger:
        stranger.settimeout(10)
        head = f"POST {PLACE} HTTP/1.1\r\nHost: x\r\nContent-Length: {(6 << 20) + 1}\r\n\r\n"
        stranger.sendall(head.encode())
        assert stranger.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_back_call_of_a_live_session_is_answered_and_what_fails_says_so(world):
    answers: list[tuple[int, bytes, dict[str, str]]] = []

    def script(asked: Asked) -> None:
        session = asked.line["session_id"]
        asked.begin()
        answers.append(world.ask("POST", PLACE, invoke(session), Dify_Plugin_Session_ID=session))
        answers.append(world.ask("POST", PLACE, invoke(session, type="llm")))
        answers.append(
            world.ask("POST", PLACE, invoke(session).replace(b'"type": "storage"', b'"type": ""'))
        )
        asked.end()

    world.function.script = script
    assert call(world).error is None
    first, second, third = answers
    assert first[0] == 200
    assert first[2]["content-type"].startswith("text/event-stream")
    lines = [json.loads(line) for line in re.split(rb"\n+", first[1]) if line]
    assert [one["data"]["event"] for one in lines] in (["response", "end"], ["error", "end"])
    assert all(one["data"]["backwards_request_id"] == "r1" for one in lines)
    assert b"PermissionDenied" in second[1]
    assert third[0] == 500
    assert b"failed to parse request" in third[1]


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "identity", "gzip;q=0", ""])
def test_answers_to_back_calls_are_compressed_where_that_is_taken(world, accepted):
    answers: list[tuple[int, bytes, dict[str, str]]] = []

    def script(asked: Asked) -> None:
        session = asked.line["session_id"]
        asked.begin()
        text = invoke(session)
        answers.append(world.ask("POST", PLACE, text, Accept_Encoding=accepted))
        asked.end()

    world.function.script = script
    assert call(world).error is None
    taken = accepted in ("gzip", "br, gzip;q=0.5")
    ((status, body, headers),) = answers
    assert status == 200
    assert headers.get("content-encoding") == ("gzip" if taken else None)
    text = gzip.decompress(body) if taken else body  # whole: it checks sum and length
    lines = [json.loads(line) for line in re.split(rb"\n+", text) if line]
    assert [one["data"]["event"] for one in lines][-1] == "end"


@pytest.mark.leaks("another host comes, and the link to it stays")
def test_a_back_call_that_arrives_at_another_host_is_answered_by_the_one_that_called(
    world, tmp_path
):
    answers: list[tuple[int, bytes, dict[str, str]]] = []

    def script(asked: Asked) -> None:
        session = asked.line["session_id"]
        asked.begin()
        for text in (invoke(session), invoke(session, type="llm")):
            answers.append(other.ask("POST", PLACE, text, Dify_Plugin_Session_ID=session))
        asked.end()
        sessions.append(session)

    sessions: list[str] = []
    world.function.script = script
    with serverless_world(tmp_path) as other:
        assert call(world).error is None
        late = other.ask("POST", PLACE, invoke(sessions[0]))
    (first, second), lines = (
        answers,
        [json.loads(one) for one in answers[0][1].split(b"\n\n") if one],
    )
    assert (first[0], [one["data"]["event"] for one in lines][-1]) == (200, "end")
    assert lines[0]["session_id"] == sessions[0]
    assert b"PermissionDenied" in second[1]
    assert (late[0], b"SessionNotFound" in late[1]) == (400, True)


def test_a_back_call_that_was_handed_on_streams_and_ends_with_who_asked(tmp_path):
    """From its function to api, to that host, to the one that called it, to Dify - and back."""
    stopped, heard = Event(), Queue()

    def tool(exchange: Any) -> None:
        exchange.begin()
        exchange.send({"type": "text", "message": {"text": "first"}})
        exchange.sock.recv(1)  # until our host hangs up
        stopped.set()

    def script(asked: Asked) -> None:
        session = asked.line["session_id"]
        asked.begin()
        request = {"tool_type": "builtin", "provider": "p", "tool": "t", "tool_parameters": {}}
        body = invoke(session, request, type="tool")
        with socket.create_connection(other.address) as sock:
            head = f"POST {PLACE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body)
            answer = b""
            while b"first" not in answer:
                answer += sock.recv(1 << 16)
            heard.put(answer)
        assert stopped.wait(10)
        asked.end()

    granted = {**DECLARATION, "resource": {"permission": {"tool": {"enabled": True}}}}
    with (
        fake_dify() as dify,
        serverless_world(tmp_path / "home", **dify.environ) as home_world,
        serverless_world(tmp_path / "other") as other,
    ):
        dify.on("invoke/tool", tool)
        function = Function(script)
        home_world.forge(WEATHER, granted, function.url)
        assert call(home_world).error is None
        assert stopped.is_set()
        assert heard.get(timeout=1)
        assert home_world.host.target.running == 0
        assert other.serverless._neighbours._relays == set()
        function.server.stop()


def test_where_a_session_lives_is_hidden_from_its_function(world):
    assert call(world).texts == ["sunny"]
    session = world.function.asked[-1].line["session_id"]
    for part in re.split(r"[~.]", session):
        shown = part.encode() + base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        assert b"host.sock" not in shown


@pytest.mark.parametrize(
    ("machine", "address", "told"),
    [("another", "", b"TIDEGATE_LINK_TCP"), ("another", "127.0.0.1:1", b"HostLost")],
)
def test_a_session_of_a_host_that_cannot_be_reached_says_so(
    world, monkeypatch, machine, address, told
):
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: machine)
        places = Places(replace(world.settings, tidegate_link_advertise=address))
    status, answer, _ = world.ask("POST", PLACE, invoke(places.signed("5b0d6f3e")))
    assert (status, told in answer) == (503, True)


def test_on_other_platforms_there_is_no_such_route(tmp_path):
    from tests.integration.door_world import world as door_world

    with door_world(tmp_path, {}) as door:
        assert door.call("POST", PLACE, body=invoke("x"))[0] == 404


# --------------------------------------------------------------------------- administration


def admin(world: ServerlessWorld, path: str, key: str = ADMIN, **form: str):
    body = json.dumps(form).encode()
    return world.ask(
        "POST",
        f"/admin/plugin/serverless/{path}",
        body,
        X_Admin_Api_Key=key,
        Content_Type="application/json",
    )


@pytest.mark.leaks("the pool of the database grows")
def test_an_administrator_switches_the_endpoint_at_once(world):
    other = Function(script=lambda asked: (asked.begin(), asked.say("cloudy"), asked.end())[2])
    given = {"function_name": "other", "plugin_unique_identifier": WEATHER}
    try:
        assert admin(world, "switch-endpoint", function_url=other.url, **given)[0] == 200
        assert call(world).texts == ["cloudy"]
    finally:
        _, body, _ = admin(world, "switch-endpoint", function_url=world.function.url, **given)
        other.server.stop()
    assert json.loads(body) == {"code": 0, "message": "success", "data": True}
    assert call(world).texts == ["sunny"]


def test_what_has_no_function_leaves_nothing_behind(world):
    for number in range(3):
        unknown = f"acme/none:0.0.{number}@" + "00" * 32
        data = {"provider": "none", "tool": "now", "tool_parameters": {}, "credentials": {}}
        body = json.dumps({"tenant_id": TENANT, "data": data}).encode()
        headers = {"X_Plugin_Unique_Identifier": unknown, "Content_Type": "application/json"}
        _, answer, _ = world.ask("POST", "/v2/invoke/dispatch/tool/invoke", body, **headers)
        assert b"plugin runtime not found" in answer
    assert call(world).texts == ["sunny"]
    assert not [one for one in world.serverless._entrances if one.startswith("acme/none")]
    assert WEATHER in world.serverless._entrances
    world.control("remove", identifier=WEATHER)
    assert WEATHER not in world.serverless._entrances


def test_switching_what_has_no_function_is_an_error(world):
    given = {"function_name": "x", "function_url": "http://x"}
    identifier = "acme/none:0.0.1@" + "00" * 32
    status, body, _ = admin(world, "switch-endpoint", plugin_unique_identifier=identifier, **given)
    assert (status, json.loads(body)["code"]) == (200, -500)
    assert admin(world, "switch-endpoint")[0] == 400
    assert admin(world, "switch-endpoint", key="wrong")[0] == 401


def test_a_reinstallation_tells_how_it_ends(world):
    _, body, headers = admin(world, "reinstall", plugin_unique_identifier=WEATHER)
    assert headers["content-type"] == "text/event-stream"
    events = [json.loads(line[5:])["data"] for line in body.splitlines() if line]
    assert events[0] == {"event": "info", "data": "reinstalling..."}
    assert events[-1]["event"] == "error"


# --------------------------------------------------------------------------- start


@pytest.mark.parametrize(
    ("url", "text"),
    [("", "needs DIFY_PLUGIN_SERVERLESS_CONNECTOR_URL"), ("http://127.0.0.1:1", "does not answer")],
)
def test_without_a_connector_the_host_does_not_start(world, url, text):
    from tidegate.hosts.serverless.connector import Connector
    from tidegate.runtime.http_pool import HttpPool

    settings = replace(world.settings, dify_plugin_serverless_connector_url=url)
    with pytest.raises(StartRefused, match=text):
        Connector(settings, HttpPool()).ping()


def test_what_answers_but_is_no_connector_is_refused(world):
    from tidegate.hosts.serverless.connector import Connector
    from tidegate.runtime.http_pool import HttpPool

    world.function.script = lambda asked: asked.plain("200 OK", b"hello")
    settings = replace(world.settings, dify_plugin_serverless_connector_url=world.function.url)
    pool = HttpPool()
    with pytest.raises(StartRefused, match="is no connector"):
        Connector(settings, pool).ping()
    pool.close()


@pytest.mark.parametrize("setting", ["TIDEGATE_PLUGIN_SESSIONS", "TIDEGATE_TENANT_SESSIONS"])
def test_T_B5_a_call_over_the_cap_waits_for_its_turn_and_is_then_refused(tmp_path, setting):
    caps: dict[str, object] = {setting: 1, "TIDEGATE_ADMISSION_WAIT": 0.7}
    turns: Queue[Asked] = Queue()
    go: Queue[None] = Queue()

    def script(asked: Asked) -> None:
        turns.put(asked)
        go.get(timeout=10)
        _answer(asked)

    with serverless_world(tmp_path, **caps) as world:
        world.function = Function(script=script)
        world.forge(WEATHER, DECLARATION, world.function.url)
        first = gevent.spawn(call, world)
        turns.get(timeout=10)
        waits = gevent.spawn(call, world)
        refused = call(world)  # it gives up together with the one that came before it
        assert refused.status == 429
        assert waits.get(timeout=5).status == 429
        waits = gevent.spawn(call, world)
        until_waiting(world, 1)
        go.put(None)
        assert first.get().texts == ["sunny"]
        turns.get(timeout=5)
        go.put(None)
        assert waits.get().texts == ["sunny"]
        assert world.serverless._sessions.may(TENANT)
        world.function.server.stop()


def until_waiting(world: ServerlessWorld, count: int) -> None:
    """Until so many calls wait for a session."""
    end = time.monotonic() + 5
    while sum(one["waiting"] for one in world.control("status")) != count:
        assert time.monotonic() < end, f"not {count} calls wait"
