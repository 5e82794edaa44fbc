"""Back-calls of a real SDK plugin, answered by a Dify: each type, and what a session means."""

from __future__ import annotations

import json
import uuid
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from tests.backcall_world import TENANT, World, back_call_world, results
from tests.databases import Backend
from tests.fake_dify import FakeDify, fake_dify, stream
from tests.hosting import PLUGINS
from tests.patience import patience

USAGE = {
    "prompt_tokens": 1, "prompt_unit_price": "0", "prompt_price_unit": "0", "prompt_price": "0",
    "completion_tokens": 2, "completion_unit_price": "0", "completion_price_unit": "0",
    "completion_price": "0", "total_tokens": 3, "total_price": "0", "currency": "USD",
    "latency": 0.1,
}  # fmt: skip
EMBEDDING_USAGE = {
    "tokens": 1, "total_tokens": 1, "unit_price": "0", "price_unit": "0", "total_price": "0",
    "currency": "USD", "latency": 0.1,
}  # fmt: skip
NODE = {"process_data": {}, "inputs": {}, "outputs": {"city": "Rome"}}


def chunk(text: str, index: int = 0, last: bool = False, **more: Any) -> dict[str, Any]:
    """One chunk of a language model."""
    message = {"role": "assistant", "content": text, "name": None, "tool_calls": []}
    delta = {"index": index, "message": message, "usage": USAGE if last else None}
    return {"model": "m1", "delta": {**delta, "finish_reason": "stop" if last else None}, **more}


def message(text: str) -> dict[str, Any]:
    """One message of a tool."""
    return {"type": "text", "message": {"text": text}, "meta": None}


def script(dify: FakeDify) -> None:
    """Sensible answers to everything."""
    dify.on("invoke/llm", stream(chunk("one "), chunk("two", 1, last=True)))
    structured = chunk("{}", 0, last=True, structured_output={"name": "Ada"})
    dify.on("invoke/llm/structured-output", stream(structured))
    embedding = {"model": "m1", "embeddings": [[0.5]], "usage": EMBEDDING_USAGE}
    dify.on("invoke/text-embedding", lambda exchange: embedding)
    dify.on("invoke/multimodal-embedding", lambda exchange: embedding)
    ranked = {"model": "m1", "docs": [{"index": 1, "text": "two", "score": 0.9}]}
    dify.on("invoke/rerank", lambda exchange: ranked)
    dify.on("invoke/multimodal-rerank", lambda exchange: ranked)
    dify.on("invoke/tts", stream({"result": "0001"}, {"result": "02"}))
    dify.on("invoke/speech2text", lambda exchange: {"result": exchange.body["file"]})
    dify.on("invoke/moderation", lambda exchange: {"result": "bad" in exchange.body["text"]})
    dify.on("invoke/summary", lambda exchange: {"summary": "short"})
    dify.on("invoke/tool", stream(message("it is"), message("now")))
    dify.on("invoke/app", stream({"event": "message", "answer": "a"}, {"event": "message_end"}))
    dify.on("fetch/app/info", lambda exchange: {"data": {"id": exchange.body["app_id"]}})
    dify.on("invoke/parameter-extractor", lambda exchange: NODE)
    dify.on("invoke/question-classifier", lambda exchange: NODE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, backend: Backend):
    """One host with the backcaller, one Dify."""
    with fake_dify() as dify, backend.fresh(ends=False) as servers:
        home = tmp_path_factory.mktemp("backcalls")
        script(dify)
        dify.keeps_alive = False
        with back_call_world(home, **dify.environ, **servers) as world:
            backcaller = world.add(PLUGINS / "backcaller")
            world.ask(backcaller, "moderation")  # opens the link, which then stays,
            world.ask(backcaller, "storage", opt="set", key="k")  # and the database
            yield dify, world, backcaller


@pytest.fixture
def dify(shared) -> FakeDify:
    script(shared[0])
    shared[0].calls.clear()
    shared[0].arrived.clear()
    return shared[0]


@pytest.fixture
def world(shared) -> World:
    return shared[1]


@pytest.fixture
def backcaller(shared) -> str:
    return shared[2]


EXPECTED: dict[str, Any] = {
    "llm": [{"text": "one "}, {"text": "two"}],
    "llm_whole": [{"text": "one two", "tokens": 3}],
    "structured": [{"text": "{}", "object": {"name": "Ada"}}],
    "embedding": [{"embeddings": [[0.5]]}],
    "multimodal_embedding": [{"embeddings": [[0.5]]}],
    "rerank": [{"docs": ["two"]}],
    "multimodal_rerank": [{"docs": [1]}],
    "tts": [{"audio": "0001"}, {"audio": "02"}],
    "speech2text": [{"text": b"sound".hex()}],
    "moderation": [{"bad": True}],
    "summary": [{"summary": "short"}],
    "tool": [
        {"type": "text", "message": {"text": "it is"}},
        {"type": "text", "message": {"text": "now"}},
    ],
    "workflow_tool": [{"type": "text"}, {"type": "text"}],
    "chat": [{"event": "message", "answer": "a"}, {"event": "message_end"}],
    "chat_whole": [{"event": "message", "answer": "a"}],
    "completion": [{"event": "message", "answer": "a"}],
    "workflow": [{"event": "message", "answer": "a"}, {"event": "message_end"}],
    "app": [{"id": "app-1"}],
    "parameters": [NODE],
    "classes": [NODE],
}


@pytest.mark.parametrize("what", EXPECTED)
def test_T21_each_type_is_answered_from_a_tool(dify, world, backcaller, what):
    assert world.ask(backcaller, what) == EXPECTED[what]
    assert dify.calls[0].body["tenant_id"] == TENANT
    assert dify.calls[0].body["user_id"] == "u1"
    assert world.wait_idle()


@pytest.mark.parametrize("what", EXPECTED)
def test_T21_each_type_is_answered_from_an_endpoint_and_a_thread(dify, world, backcaller, what):
    found = world.endpoint(backcaller, {"what": "from_thread", "inner": what})
    assert found == EXPECTED[what]
    assert dify.calls[0].body["user_id"] == ""  # sessions of endpoints have no user


@pytest.fixture(scope="module")
def agent(shared) -> str:
    """The backcaller as an agent strategy."""
    return shared[1].add_agent()


@pytest.mark.parametrize("what", EXPECTED)
def test_T21_each_type_is_answered_from_an_agent(dify, world, agent, what):
    answer = world.start_agent(agent, what, {}).wait()
    assert answer.error is None
    assert results(answer) == EXPECTED[what]


def test_storage_is_answered_here(dify, world, backcaller):
    assert world.ask(backcaller, "storage", opt="set", key="k", size=5) == [{"done": "set"}]
    assert world.ask(backcaller, "storage", opt="get", key="k") == [{"size": 5}]
    assert world.endpoint(backcaller, {"what": "storage", "opt": "exist", "key": "k"}) == [
        {"there": True}
    ]
    assert world.ask(backcaller, "storage", opt="del", key="k") == [{"done": "del"}]
    (answer,) = world.ask(backcaller, "storage", opt="get", key="k")
    assert answer["error"].startswith("load data failed")
    assert dify.calls == []


def test_a_file_is_uploaded_where_dify_says(dify, world, backcaller):
    dify.on("upload/file/request", lambda exchange: {"url": dify.url + "/inner/api/files"})
    file = {"id": "f1", "name": "a.txt", "size": 7, "extension": "txt", "mime_type": "text/plain"}

    def take(exchange: Any) -> None:
        exchange.json(file, "201 CREATED")

    with upload_server(file) as url:
        dify.on("upload/file/request", lambda exchange: {"url": url})
        (found,) = world.ask(backcaller, "upload")
    assert found["id"] == "f1"
    assert dify.calls[0].body["filename"] == "a.txt"


class upload_server:
    """Takes one multipart upload and answers 201."""

    def __init__(self, file: dict[str, Any]) -> None:
        self._file = file

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._greenlet = gevent.spawn(self._serve)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/upload"

    def __exit__(self, *details: object) -> None:
        self._listener.close()
        self._greenlet.join(5)

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            received = b""
            while b"content" not in received.partition(b"\r\n\r\n")[2]:
                received += sock.recv(65536)
            body = json.dumps(self._file).encode()
            head = b"HTTP/1.1 201 CREATED\r\nConnection: close\r\n"
            sock.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def test_a_number_keeps_its_digits_and_unknown_fields_pass(dify, world, backcaller):
    big = 12345678901234567890123
    dify.on("invoke/app", stream({"event": "x", "n": big}))
    request = {"app_id": "a", "inputs": {"n": big}, "brand_new": [1.5]}
    assert world.ask(backcaller, "raw", type="app", request=request) == [{"event": "x", "n": big}]
    assert b'"brand_new":' in dify.calls[0].raw.replace(b" ", b"")
    assert str(big).encode() in dify.calls[0].raw


def test_the_trace_of_the_caller_reaches_dify(dify, world, backcaller):
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    world.start(backcaller, "moderation", {}, trace=trace).wait()
    assert dify.calls[0].headers["traceparent"].split("-")[1] == "ab" * 16


def test_an_error_of_dify_is_raised_in_the_plugin_by_its_text(dify, world, backcaller):
    dify.on("invoke/llm", lambda exchange: exchange.json({"message": "no model"}, "400 BAD"))
    (answer,) = world.ask(backcaller, "llm")
    assert answer["error"] == (
        "invoke llm model failed: request failed with status code: 400 and respond with: "
        '{"message": "no model"}'
    )


# --------------------------------------------------------------------------- permissions


@pytest.fixture(scope="module")
def poor(shared) -> str:
    """The backcaller again, without any permission."""
    manifest = _renamed("poor")["manifest.yaml"]
    start, end = manifest.index("  permission:"), manifest.index("plugins:")
    bare = {"manifest.yaml": manifest[:start] + manifest[end:]}
    return shared[1].add(PLUGINS / "backcaller", files=bare)


def test_T_S18_what_the_manifest_does_not_grant_is_refused_and_logged(dify, world, poor, caplog):
    for what, access in (("llm", "llm"), ("tool", "tool"), ("chat", "app"), ("classes", "node")):
        (answer,) = results(world.start(poor, what, {}).wait())
        assert answer["error"] == (
            f"permission denied, you need to enable {access} access in plugin manifest"
        )
    (answer,) = results(world.start(poor, "storage", {"opt": "set", "key": "k"}).wait())
    assert "storage access" in answer["error"]
    assert dify.calls == []
    assert caplog.text.count("back-call refused") == 5


def test_T_S18_a_back_call_in_a_foreign_name_is_refused_and_logged(dify, world, backcaller, caplog):
    for forged in ("11111111-2222-4333-8444-555555555555", "", "x" * 1000):
        found = world.ask(backcaller, "forged", session=forged, type="storage")
        assert [one["event"] for one in found] == ["error", "end"]
        assert found[0]["data"] is None
        assert found[0]["error_type"] == "SessionOver"
    assert caplog.text.count("back-call refused") == 3
    assert dify.calls == []


@pytest.fixture
def live(dify, world, backcaller):
    """A session of the backcaller that goes on while others speak in its name; (id, answer, end).

    ``end`` lets Dify finish what the session waits for.
    """
    began, end = Event(), Event()

    def handle(exchange: Any) -> None:
        exchange.begin()
        exchange.send(chunk("one "))
        began.set()
        end.wait(10)
        exchange.send(chunk("two", 1, last=True))
        exchange.finish()

    dify.on("invoke/llm", handle)
    session = str(uuid.uuid4())
    answer = world.start(backcaller, "llm", {}, session=session)
    assert began.wait(5)
    answer.first()
    dify.calls.clear()
    yield session, answer, end
    end.set()
    answer.wait(5)


def test_T_S18_the_live_session_of_another_plugin_gives_no_rights(dify, world, poor, live, caplog):
    """Neither its permissions nor its storage, and nothing of the answer reaches either side."""
    session, answer, end = live
    for type in ("storage", "llm", "tool", "app"):
        found = world.ask(poor, "forged", session=session, type=type)
        assert [(one["event"], one.get("error_type")) for one in found] == [
            ("error", "SessionOver"),
            ("end", None),
        ]
    assert dify.calls == []
    refused = [one.fields for one in caplog.records if one.message == "back-call refused"]
    assert [one["type"] for one in refused] == ["storage", "llm", "tool", "app"]
    for one in refused:
        assert (one["plugin"], one["session"]) == (poor, session)
    end.set()
    assert answer.wait(5).error is None
    assert results(answer) == [{"text": "one "}, {"text": "two"}]


def test_T_S18_nobody_speaks_or_ends_in_the_live_session_of_another_plugin(world, poor, live):
    session, answer, end = live
    spoken = {"type": "json", "message": {"json_object": {"forged": True}}}
    messages = [
        {"type": "stream", "data": spoken},
        {"type": "error", "data": {"error_type": "Forged", "message": "forged", "args": {}}},
        {"type": "end", "data": {}},
    ]
    assert world.ask(poor, "spoken", session=session, messages=messages) == [{"said": 3}]
    end.set()
    assert answer.wait(5).error is None
    assert results(answer) == [{"text": "one "}, {"text": "two"}]


def test_T_S18_the_owner_of_a_session_is_heard_in_it(world, backcaller, live):
    """The guard's own test: what was refused above is taken from the session's own plugin."""
    session, answer, _ = live
    messages = [{"type": "error", "data": {"error_type": "Own", "message": "m", "args": {}}}]
    world.ask(backcaller, "spoken", session=session, messages=messages)
    assert answer.wait(5).error_type == "Own"


def test_a_back_call_without_a_type_ends_its_session_as_the_reference_does(world, backcaller):
    answer = world.start(backcaller, "malformed", {}).wait(5)
    assert answer.error["error_type"] == "invoke_dify_error"
    assert answer.error["message"] == "invoke dify failed: invoke request missing type"


def test_an_unknown_type_is_answered_at_once(world, backcaller):
    found = world.ask(backcaller, "forged", session="x", type="encrypt")
    assert [one["event"] for one in found] == ["error", "end"]


# --------------------------------------------------------------------------- sessions


def held(dify: FakeDify, path: str) -> tuple[Event, Event]:
    """A stream that says one thing and then waits; (it did so, the client closed)."""
    began, left = Event(), Event()

    def handle(exchange: Any) -> None:
        exchange.begin()
        exchange.send(chunk("one "))
        began.set()
        exchange.sock.recv(1)
        left.set()

    dify.on(path, handle)
    return began, left


def test_a_caller_that_leaves_aborts_the_request_to_dify(dify, world, backcaller):
    began, left = held(dify, "invoke/llm")
    answer = world.start(backcaller, "llm", {})
    assert began.wait(5)
    answer.first()
    answer.call.cancel()
    assert left.wait(patience(1))
    assert world.wait_idle(1)


def test_T15_a_back_call_has_its_calls_deadline(dify, world, backcaller):
    began, left = held(dify, "invoke/llm")
    answer = world.start(backcaller, "llm", {}, seconds=1.0)
    assert began.wait(5)
    assert left.wait(patience(2))
    assert answer.wait(10).error_type == "DeadlineExceeded"
    assert world.wait_idle(1)


def test_back_calls_after_the_end_of_their_session_are_refused_at_once(dify, world, backcaller):
    """A plugin thread that goes on when its caller is gone hears so, and is free."""
    began, left = held(dify, "invoke/llm")
    answer = world.start(backcaller, "many", {"inner": "llm", "count": 3})
    assert began.wait(5)
    answer.call.cancel()
    assert left.wait(patience(1))
    assert world.wait_idle(1)
    assert world.ask(backcaller, "moderation") == [{"bad": True}]


@pytest.fixture(scope="module")
def victim(shared) -> str:
    """One that may be killed."""
    return shared[1].add(PLUGINS / "backcaller", files=_renamed("victim"))


def test_a_plugin_that_dies_aborts_its_back_calls(dify, world, victim):
    began, left = held(dify, "invoke/llm")
    answer = world.start(victim, "llm", {})
    assert began.wait(5)
    world.instance(victim).kill("the test says so")
    assert left.wait(patience(2))
    assert answer.wait(5).error_type == "PluginDied"
    assert world.wait_idle(2)
    world.host.stop_plugin(victim, grace=0.0)


def _renamed(name: str) -> dict[str, str]:
    manifest = (PLUGINS / "backcaller" / "manifest.yaml").read_text()
    return {"manifest.yaml": manifest.replace("name: backcaller", f"name: {name}")}


def test_D_24_a_slow_plugin_loses_nothing_and_holds_dify_back(dify, world, backcaller):
    count = 300
    sent = []

    def handle(exchange: Any) -> None:
        exchange.begin()
        for number in range(count):
            exchange.send(chunk(f"{number} " + "x" * (32 << 10), number))
            sent.append(number)
        exchange.finish()

    dify.on("invoke/llm", handle)
    answer = world.start(backcaller, "llm", {"pause": 0.004})
    assert answer.wait(30).error is None
    texts = [one["text"].split(" ")[0] for one in results(answer)]
    assert texts == [str(number) for number in range(count)]


def test_a_back_call_does_not_hold_up_the_streams_beside_it(dify, world, backcaller):
    began, left = held(dify, "invoke/llm")
    waiting = world.start(backcaller, "llm", {})
    assert began.wait(5)
    assert world.ask(backcaller, "moderation") == [{"bad": True}]
    waiting.call.cancel()
    assert left.wait(patience(1))


def test_many_back_calls_of_one_session_at_once(dify, world, backcaller):
    (found,) = world.ask(backcaller, "many", inner="llm", count=40)
    assert found["counts"] == [2] * 40
    assert world.wait_idle()


def test_R23_a_tool_call_through_dify_back_into_this_host_is_quick(dify, world, backcaller):
    """Dify answers a tool call by calling a plugin here, while the first one waits."""

    def reenter(exchange: Any) -> None:
        inner = world.start(backcaller, "moderation", {}).wait()
        exchange.begin()
        for result in results(inner):
            exchange.send({"type": "json", "message": {"json_object": result}, "meta": None})
        exchange.finish()

    dify.on("invoke/tool", reenter)
    with gevent.Timeout(patience(1)):
        found = world.ask(backcaller, "tool")
    assert found[0]["message"]["json_object"] == {"bad": True}


def test_the_inner_key_is_no_variable_of_a_plugin(world, backcaller):
    environ = _environ(world.instance(backcaller).pid)
    assert "DIFY_INNER_API_KEY" not in environ
    assert world.settings.dify_inner_api_key.reveal() not in environ


def _environ(pid: int) -> str:
    with open(f"/proc/{pid}/environ", encoding="utf-8", errors="replace") as file:
        return file.read()
