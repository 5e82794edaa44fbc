"""Every action of spec/plugin/04 end to end: what the plugin gets, and what the caller gets."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.databases import Backend
from tests.integration.door_world import (
    OTHER_TENANT,
    TENANT,
    WEATHER,
    World,
    error_of,
    events,
    opened,
    world,
)
from tidegate.doors.dify import ACTIONS

CREDENTIALS = {"credentials": {"k": "v"}, "credential_type": "api-key"}
MODEL = {"provider": "p", "model": "m", **CREDENTIALS}
MESSAGES = [{"role": "user", "content": "hi"}]
IMAGE = {"content": "aGk=", "content_type": "image"}
SOURCE = {"provider": "p", "datasource": "d", **CREDENTIALS}
SUBSCRIPTION = {"endpoint": "https://d.example/t", "properties": {}, "expires_at": -1}
OAUTH = {"provider": "p", "redirect_uri": "https://d.example", "system_credentials": {}}
TOOL = {"provider": "weather", "tool": "now", "tool_parameters": {}, **CREDENTIALS}
AGENT = {
    "agent_strategy_provider": "agent",
    "agent_strategy": "react",
    "agent_strategy_params": {"query": "q"},
}
LLM = {
    **MODEL,
    "model_type": "llm",
    "prompt_messages": MESSAGES,
    "model_parameters": {},
    "tools": [],
    "stop": [],
    "stream": True,
}

#: path -> ((type, action), data of a request that says everything, one chunk of the answer)
CASES: dict[str, tuple[tuple[str, str], dict[str, Any], Any]] = {
    "tool/invoke": (("tool", "invoke_tool"), TOOL, {"type": "text", "message": {"text": "x"}}),
    "tool/validate_credentials": (
        ("tool", "validate_tool_credentials"),
        {"provider": "p", "credentials": {}},
        {"result": True},
    ),
    "tool/get_runtime_parameters": (
        ("tool", "get_tool_runtime_parameters"),
        {"provider": "p", "tool": "t", "credentials": {}},
        {"parameters": [{"name": "c", "options": []}]},
    ),
    "agent_strategy/invoke": (
        ("agent_strategy", "invoke_agent_strategy"),
        AGENT,
        {"type": "log", "message": {"id": "1"}, "meta": None},
    ),
    "llm/invoke": (("model", "invoke_llm"), LLM, {"model": "m", "delta": {"index": 0}}),
    "llm/num_tokens": (
        ("model", "get_llm_num_tokens"),
        {**MODEL, "model_type": "llm", "prompt_messages": MESSAGES, "tools": []},
        {"num_tokens": 12},
    ),
    "text_embedding/invoke": (
        ("model", "invoke_text_embedding"),
        {**MODEL, "model_type": "text-embedding", "texts": ["a"], "input_type": "document"},
        {"model": "m", "embeddings": [[0.1]], "usage": {"tokens": 1}},
    ),
    "text_embedding/num_tokens": (
        ("model", "get_text_embedding_num_tokens"),
        {**MODEL, "model_type": "text-embedding", "texts": ["a"]},
        {"num_tokens": [1]},
    ),
    "multimodal_embedding/invoke": (
        ("model", "invoke_multimodal_embedding"),
        {**MODEL, "model_type": "text-embedding", "documents": [IMAGE], "input_type": "query"},
        {"model": "m", "embeddings": [[0.1]], "usage": {"tokens": 1}},
    ),
    "rerank/invoke": (
        ("model", "invoke_rerank"),
        {
            **MODEL,
            "model_type": "rerank",
            "query": "q",
            "docs": ["a"],
            "score_threshold": 0.5,
            "top_n": 2,
        },
        {"model": "m", "docs": [{"index": 0, "text": "a", "score": 0.9}]},
    ),
    "multimodal_rerank/invoke": (
        ("model", "invoke_multimodal_rerank"),
        {
            **MODEL,
            "model_type": "rerank",
            "query": {"content": "q", "content_type": "text"},
            "docs": [IMAGE],
            "score_threshold": None,
            "top_n": None,
        },
        {"model": "m", "docs": [{"index": 0, "text": "a", "score": 0.9}]},
    ),
    "tts/invoke": (
        ("model", "invoke_tts"),
        {**MODEL, "model_type": "tts", "content_text": "x", "voice": "v", "tenant_id": TENANT},
        {"result": "fffb90", "mime_type": "audio/mpeg"},
    ),
    "tts/model/voices": (
        ("model", "get_tts_model_voices"),
        {**MODEL, "model_type": "tts", "language": "en-US"},
        {"voices": [{"name": "N", "value": "v"}]},
    ),
    "speech2text/invoke": (
        ("model", "invoke_speech2text"),
        {**MODEL, "model_type": "speech2text", "file": "5249"},
        {"result": "hello"},
    ),
    "moderation/invoke": (
        ("model", "invoke_moderation"),
        {**MODEL, "model_type": "moderation", "text": "x"},
        {"result": False},
    ),
    "model/validate_provider_credentials": (
        ("model", "validate_provider_credentials"),
        {"provider": "p", **CREDENTIALS},
        {"result": True, "credentials": {}},
    ),
    "model/validate_model_credentials": (
        ("model", "validate_model_credentials"),
        {**MODEL, "model_type": "tts"},
        {"result": True, "credentials": {}},
    ),
    "model/schema": (
        ("model", "get_ai_model_schemas"),
        {**MODEL, "model_type": "llm"},
        {"model_schema": {"model": "m", "label": {"en_US": "M"}}},
    ),
    "model/polling/start": (
        ("model", "start_polling"),
        {**LLM, "stream": False},
        {"status": "running", "plugin_state": {"t": 1}},
    ),
    "model/polling/check": (
        ("model", "check_polling"),
        {**MODEL, "model_type": "llm", "plugin_state": {"t": 1}},
        {"status": "succeeded", "result": {"x": 1}},
    ),
    "oauth/get_authorization_url": (
        ("oauth", "get_authorization_url"),
        OAUTH,
        {"authorization_url": "https://x.example"},
    ),
    "oauth/get_credentials": (
        ("oauth", "get_credentials"),
        {**OAUTH, "raw_http_request": "4745"},
        {"metadata": {}, "credentials": {}, "expires_at": 5},
    ),
    "oauth/refresh_credentials": (
        ("oauth", "refresh_credentials"),
        {**OAUTH, "credentials": {}},
        {"credentials": {}, "expires_at": 5},
    ),
    "dynamic_select/fetch_parameter_options": (
        ("dynamic_parameter", "fetch_parameter_options"),
        {"provider": "p", "provider_action": "a", "parameter": "c", **CREDENTIALS},
        {"options": [{"value": "C1", "label": {"en_US": "general"}, "icon": ""}]},
    ),
    "datasource/validate_credentials": (
        ("datasource", "validate_datasource_credentials"),
        {"provider": "p", **CREDENTIALS},
        {"result": True},
    ),
    "datasource/get_website_crawl": (
        ("datasource", "invoke_website_datasource_get_crawl"),
        {**SOURCE, "datasource_parameters": {"url": "https://x.example"}},
        {"result": {"status": "processing"}},
    ),
    "datasource/get_online_document_pages": (
        ("datasource", "invoke_online_document_datasource_get_pages"),
        {**SOURCE, "datasource_parameters": {}},
        {"result": [{"workspace_id": "w", "pages": []}]},
    ),
    "datasource/get_online_document_page_content": (
        ("datasource", "invoke_online_document_datasource_get_page_content"),
        {**SOURCE, "page": {"workspace_id": "w", "page_id": "p", "type": "page"}},
        {
            "type": "variable",
            "message": {"variable_name": "content", "variable_value": "x", "stream": False},
        },
    ),
    "datasource/online_drive_browse_files": (
        ("datasource", "invoke_online_drive_browse_files"),
        {**SOURCE, "request": {"bucket": None, "prefix": "/", "max_keys": 20}},
        {"result": [{"bucket": None, "files": []}]},
    ),
    "datasource/online_drive_download_file": (
        ("datasource", "invoke_online_drive_download_file"),
        {**SOURCE, "request": {"bucket": None, "id": "1"}},
        {"type": "blob", "message": {"blob": "YQ=="}, "meta": {"mime_type": "text/plain"}},
    ),
    "trigger/invoke_event": (
        ("trigger", "invoke_trigger_event"),
        {
            "provider": "p",
            "event": "push",
            "raw_http_request": "504f",
            "parameters": {},
            "subscription": SUBSCRIPTION,
            "payload": {},
            **CREDENTIALS,
        },
        {"variables": {"ref": "main"}, "cancelled": False},
    ),
    "trigger/validate_credentials": (
        ("trigger", "validate_trigger_credentials"),
        {"provider": "p", **CREDENTIALS},
        {"result": True},
    ),
    "trigger/dispatch_event": (
        ("trigger", "dispatch_trigger_event"),
        {
            "provider": "p",
            "subscription": SUBSCRIPTION,
            "raw_http_request": "504f",
            "credentials": None,
            "credential_type": None,
        },
        {"user_id": "", "events": ["push"], "payload": {}, "response": "4854"},
    ),
    "trigger/subscribe": (
        ("trigger", "subscribe_trigger"),
        {"provider": "p", "endpoint": "https://d.example/t", "parameters": {}, **CREDENTIALS},
        {"subscription": SUBSCRIPTION},
    ),
    "trigger/unsubscribe": (
        ("trigger", "unsubscribe_trigger"),
        {"provider": "p", "subscription": SUBSCRIPTION, **CREDENTIALS},
        {"subscription": {"success": True, "message": None}},
    ),
    "trigger/refresh": (
        ("trigger", "refresh_trigger"),
        {"provider": "p", "subscription": SUBSCRIPTION, **CREDENTIALS},
        {"subscription": SUBSCRIPTION},
    ),
}
STREAMED = sorted(action.path for action in ACTIONS if not action.plain)
PLAIN = sorted(action.path for action in ACTIONS if action.plain)


class Scripted:
    """A plugin that answers with what the test put here."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def __call__(self, call: Any) -> None:
        for chunk in self.chunks:
            call.send(chunk)
        call.finish()


SCRIPT = Scripted()


@pytest.fixture(scope="module")
def door(tmp_path_factory, backend: Backend):
    folder = tmp_path_factory.mktemp("door")
    plugins = {"acme/weather": SCRIPT}
    with backend.fresh() as servers, world(folder, plugins, **servers) as made:
        made.install()
        # what is opened at the first call belongs to the door, not to the test that makes it
        made.dispatch("tool/invoke", TOOL)
        yield made


def sent(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def test_every_action_has_a_case() -> None:
    assert set(CASES) == {action.path for action in ACTIONS}
    assert len(CASES) == 36


@pytest.mark.parametrize("prefix", ["tenant", "identifier"])
@pytest.mark.parametrize("path", STREAMED)
def test_bytes_pass_both_ways(door: World, path: str, prefix: str) -> None:
    (kind, action), data, chunk = CASES[path]
    SCRIPT.chunks = [sent({**chunk, "future": 9007199254740993})]
    body = {"user_id": "u1", "data": {**data, "newer": 9007199254740993}}
    if prefix == "tenant":
        target = f"/plugin/{TENANT}/dispatch/{path}"
        headers = {"X-Plugin-ID": "acme/weather"}
    else:
        target = f"/v2/invoke/dispatch/{path}"
        headers = {"X-Plugin-Unique-Identifier": WEATHER}
        body["tenant_id"] = TENANT
    status, answer, found = door.call("POST", target, json_body=body, headers=headers)
    assert (status, found["content-type"]) == (200, "text/event-stream")
    assert answer == (b'data: {"code":0,"message":"success","data":' + SCRIPT.chunks[0] + b"}\n\n")
    assert door.host.line()["data"] == {
        "user_id": "u1", "type": kind, "action": action, **body["data"]
    }  # fmt: skip


@pytest.mark.parametrize("path", PLAIN)
def test_polling_answers_with_one_envelope(door: World, path: str) -> None:
    (kind, action), data, chunk = CASES[path]
    SCRIPT.chunks = [sent(chunk)]
    status, answer, headers = door.call(
        "POST",
        f"/plugin/{TENANT}/dispatch/{path}",
        json_body={"data": data},
        headers={"X-Plugin-ID": "acme/weather"},
    )
    assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(answer) == {"code": 0, "message": "success", "data": chunk}
    line = door.host.line()["data"]
    assert (line["type"], line["action"]) == (kind, action)


@pytest.mark.parametrize("path", PLAIN)
def test_polling_is_for_tenants_only(door: World, path: str) -> None:
    status, body, _ = door.call("POST", f"/v2/invoke/dispatch/{path}", json_body={})
    assert (status, json.loads(body)["code"]) == (404, "not_found")


def test_polling_never_streams_whatever_was_asked_for(door: World) -> None:
    SCRIPT.chunks = [sent({"status": "failed", "error": "x"})]
    door.dispatch("model/polling/start", {**LLM, "stream": True})
    assert door.host.line()["data"]["stream"] is False


@pytest.mark.parametrize("path", sorted(CASES))
def test_a_missing_field_is_named_for_each_action(door: World, path: str) -> None:
    status, [answer] = door.dispatch(path, {})
    assert (status, *error_of(answer)[:2]) == (400, -400, "PluginDaemonBadRequestError")
    assert "failed on the 'required' tag" in error_of(answer)[2]
    assert "Key: 'Data." in error_of(answer)[2]


@pytest.mark.parametrize("path", sorted(CASES))
def test_T_S11_another_tenant_is_told_that_there_is_no_plugin(door: World, path: str) -> None:
    before = len(door.host.calls)
    status, text, _ = door.call(
        "POST",
        f"/plugin/{OTHER_TENANT}/dispatch/{path}",
        json_body={"data": CASES[path][1], "tenant_id": TENANT},
        headers={"X-Plugin-ID": "acme/weather"},
    )
    [answer] = events(text)
    assert (status, *error_of(answer)[:2]) == (404, -404, "PluginNotFoundError")
    assert len(door.host.calls) == before


# ------------------------------------------------------------------ what the SDK cannot do without


@pytest.mark.parametrize(
    ("path", "gone", "written"),
    [
        ("trigger/dispatch_event", ["credentials", "credential_type"],
         {"credentials": None, "credential_type": None}),
        ("trigger/subscribe", ["credential_type"], {"credential_type": "unauthorized"}),
        ("trigger/refresh", ["credential_type"], {"credential_type": "unauthorized"}),
        ("rerank/invoke", ["score_threshold", "top_n"], {"score_threshold": 0, "top_n": 0}),
        ("multimodal_rerank/invoke", ["top_n"], {"top_n": 0}),
        ("tts/model/voices", ["language"], {"language": ""}),
        ("llm/num_tokens", ["tools"], {"tools": None}),
    ],
)  # fmt: skip
def test_keys_that_the_sdk_wants_are_there(
    door: World, path: str, gone: list[str], written: dict[str, Any]
) -> None:
    SCRIPT.chunks = []
    door.dispatch(path, {key: value for key, value in CASES[path][1].items() if key not in gone})
    line = door.host.line()["data"]
    assert {key: line[key] for key in written} == written


def test_an_empty_credential_type_counts_as_none(door: World) -> None:
    SCRIPT.chunks = []
    door.dispatch("tool/invoke", {**TOOL, "credential_type": ""})
    assert "credential_type" not in door.host.line()["data"]
    door.dispatch("trigger/refresh", {**CASES["trigger/refresh"][1], "credential_type": ""})
    assert door.host.line()["data"]["credential_type"] == "unauthorized"


@pytest.mark.parametrize(
    ("path", "changed", "words"),
    [
        ("llm/num_tokens", {"prompt_messages": [{"role": "robot"}]}, "$.prompt_messages[0].role"),
        ("multimodal_embedding/invoke", {"input_type": "zzz"}, "'InputType' failed on the 'oneof'"),
        ("multimodal_embedding/invoke", {"documents": [{"content": "x"}]}, "content_type"),
        ("multimodal_rerank/invoke", {"query": {"content": "", "content_type": "text"}}, "query"),
        ("model/polling/check", {"plugin_state": {}}, "plugin_state"),
        ("datasource/online_drive_browse_files", {"request": {"bucket": None}}, "max_keys"),
        ("datasource/online_drive_download_file", {"request": {"id": ""}}, "request.id"),
        ("trigger/subscribe", {"endpoint": ""}, "'Endpoint' failed on the 'required'"),
        ("oauth/refresh_credentials", {"credentials": None}, "'Credentials' failed on the"),
        ("speech2text/invoke", {"file": 5}, "$.file"),
    ],
)
def test_D_68_what_does_not_fit_is_told(
    door: World, path: str, changed: dict[str, Any], words: str
) -> None:
    status, [answer] = door.dispatch(path, {**CASES[path][1], **changed})
    assert (status, *error_of(answer)[:2]) == (400, -400, "PluginDaemonBadRequestError")
    assert words in error_of(answer)[2]


# ------------------------------------------------------------------ what changes on the way


def test_oauth_credentials_without_an_end_say_minus_one(door: World) -> None:
    SCRIPT.chunks = [b'{"credentials":{},"expires_at":null}']
    path = "oauth/get_credentials"
    _, [answer] = door.dispatch(path, CASES[path][1])
    assert answer["data"] == {"credentials": {}, "expires_at": -1}


def test_errata_6_a_schema_gets_a_label(door: World) -> None:
    SCRIPT.chunks = [b'{"model_schema":{"model":"m"}}']
    _, [answer] = door.dispatch("model/schema", CASES["model/schema"][1])
    assert answer["data"]["model_schema"]["label"] == {"en_US": "m"}


def blob(content: bytes, *, end: bool = False) -> bytes:
    text = base64.b64encode(content).decode()
    message = {"id": "f", "sequence": 0, "total_length": 1 << 60, "blob": text, "end": end}
    return sent({"type": "blob_chunk", "message": message, "meta": {"mime_type": "x/y"}})


def test_an_agents_file_arrives_in_one_piece_and_a_tools_in_parts(door: World) -> None:
    SCRIPT.chunks = [blob(b"abc"), blob(b"def"), blob(b"", end=True)]
    _, answers = door.dispatch("agent_strategy/invoke", AGENT)
    assert [one["data"] for one in answers] == [
        {"type": "blob", "message": {"blob": "YWJjZGVm"}, "meta": {"mime_type": "x/y"}}
    ]
    _, answers = door.dispatch("tool/invoke", TOOL)
    assert [one["data"]["type"] for one in answers] == ["blob_chunk"] * 3


def test_D_21_an_agents_file_that_is_too_large_is_a_typed_error(door: World) -> None:
    SCRIPT.chunks = [sent(CASES["tool/invoke"][2]), blob(b"x" * 8193)]
    status, answers = door.dispatch("agent_strategy/invoke", AGENT)
    assert (status, answers[0]["code"]) == (200, 0)
    code, error_type, message = error_of(answers[1])
    assert (code, error_type) == (-500, "PluginInvokeError")
    assert message["error_type"] == "MessageTooLarge"
    assert "single file chunk is too large" in message["message"]


@pytest.mark.parametrize(
    "path", ["agent_strategy/invoke", "datasource/get_online_document_page_content"]
)
def test_messages_of_agents_and_datasources_have_a_known_type(door: World, path: str) -> None:
    SCRIPT.chunks = [sent({"type": "nope", "message": {}})]
    _, [answer] = door.dispatch(path, CASES[path][1])
    message = error_of(answer)[2]
    assert message["error_type"] == "ProtocolError"
    assert "unmarshal json failed" in message["message"]


def test_an_agents_variables_are_held_against_its_declared_schema(tmp_path) -> None:
    plugin = Scripted()
    plugin.chunks = [
        sent(
            {
                "type": "variable",
                "message": {"variable_name": "n", "variable_value": "x", "stream": False},
            }
        )
    ]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    strategies = [{"identity": {"name": "react"}, "output_schema": schema}]
    declaration = {"agent_strategy": {"identity": {"name": "agent"}, "strategies": strategies}}
    with world(tmp_path, {"acme/agent": plugin}, TIDEGATE_OUTPUT_SCHEMA="enforce") as door:
        door.install(WEATHER.replace("weather", "agent"), declaration)
        _, answers = door.dispatch("agent_strategy/invoke", AGENT, "acme/agent")
    assert error_of(opened(answers[1]))[2]["error_type"] == "OutputSchemaViolation"
