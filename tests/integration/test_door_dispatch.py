"""Dispatch end to end: HTTP in, the plugin's line over the real link, server-sent events out."""

from __future__ import annotations

import json
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.databases import Backend
from tests.integration.door_world import (
    OTHER_TENANT,
    TENANT,
    WEATHER,
    World,
    error_of,
    events,
    world,
)
from tests.patience import patience

TOOL = {
    "provider": "weather",
    "tool": "now",
    "tool_parameters": {"city": "Paris"},
    "credentials": {},
    "credential_type": "api-key",
}
TEXT = b'{"type":"text","message":{"text":"18"},"meta":null}'
DISPATCH = f"/plugin/{TENANT}/dispatch/tool/invoke"


def weather(call: Any) -> None:
    call.send(TEXT)
    call.send(b'{"type":"json","message":{"json_object":{"t":9007199254740993}},"meta":null}')
    call.finish()


def rude(call: Any) -> None:
    call.send(TEXT)
    call.fail(b'{"error_type":"InvokeRateLimitError","message":"429","args":{"description":"x"}}')


def silent(call: Any) -> None:
    call.send(TEXT)
    Event().wait()


def typed(call: Any) -> None:
    call.send(
        b'{"type":"variable","message":{"variable_name":"degrees","variable_value":"18",'
        b'"stream":false},"meta":null}'
    )
    call.finish()


PLUGINS = {
    "acme/weather": weather,
    "acme/rude": rude,
    "acme/silent": silent,
    "acme/typed": typed,
}


@pytest.fixture
def door(tmp_path, backend: Backend):
    with backend.fresh() as servers, world(tmp_path, PLUGINS, **servers) as made:
        made.install()
        for name in ("rude", "silent", "typed"):
            made.install(WEATHER.replace("weather", name))
        yield made


def test_a_call_streams_the_plugins_chunks_untouched(door: World) -> None:
    status, body, headers = door.call(
        "POST", DISPATCH, json_body={"data": TOOL}, headers={"X-Plugin-ID": "acme/weather"}
    )
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    assert body == (
        b'data: {"code":0,"message":"success","data":' + TEXT + b"}\n\n"
        b'data: {"code":0,"message":"success","data":{"type":"json","message":{"json_object":'
        b'{"t":9007199254740993}},"meta":null}}\n\n'
    )


def test_the_plugin_gets_the_line_that_the_sdk_expects(door: World) -> None:
    door.dispatch(
        "tool/invoke",
        {**TOOL, "credentials": None, "future": 1},
        user_id="u1",
        conversation_id="c1",
        message_id=None,
        app_id="a1",
        context={"credentials": {"tool_credentials": {"x": "y"}}},
    )
    line = door.host.line()
    head = door.host.calls[-1].head
    assert line.pop("session_id") == head.session
    assert line == {
        "conversation_id": "c1",
        "message_id": None,
        "app_id": "a1",
        "endpoint_id": None,
        "context": {"credentials": {"tool_credentials": {"x": "y"}}},
        "event": "request",
        "data": {
            "user_id": "u1",
            "type": "tool",
            "action": "invoke_tool",
            **TOOL,
            "credentials": {},
            "future": 1,
        },
    }
    assert (head.plugin, head.tenant, head.owner) == (
        WEATHER,
        TENANT,
        "PLUGIN_MAX_EXECUTION_TIMEOUT",
    )


def test_an_absent_user_is_an_empty_one(door: World) -> None:
    door.dispatch("tool/invoke", TOOL, user_id=None)
    assert door.host.line()["data"]["user_id"] == ""


@pytest.mark.parametrize(
    ("path", "data", "kind"),
    [
        ("tool/validate_credentials", {"provider": "p"}, ("tool", "validate_tool_credentials")),
        (
            "llm/invoke",
            {"provider": "p", "model": "m", "model_type": "llm", "prompt_messages": []},
            ("model", "invoke_llm"),
        ),
        (
            "model/validate_provider_credentials",
            {"provider": "p"},
            ("model", "validate_provider_credentials"),
        ),
        (
            "model/validate_model_credentials",
            {"provider": "p", "model": "m", "model_type": "tts"},
            ("model", "validate_model_credentials"),
        ),
        (
            "model/schema",
            {"provider": "p", "model": "m", "model_type": "llm"},
            ("model", "get_ai_model_schemas"),
        ),
    ],
)
def test_every_action_reaches_the_plugin(
    door: World, path: str, data: dict[str, Any], kind: tuple[str, str]
) -> None:
    status, answers = door.dispatch(path, {**data, "credentials": None})
    assert (status, len(answers)) == (200, 2)
    line = door.host.line()["data"]
    assert (line["type"], line["action"]) == kind
    assert line["credentials"] == {}


def test_the_plugins_error_is_typed_behind_its_chunks(door: World) -> None:
    status, answers = door.dispatch("tool/invoke", TOOL, "acme/rude")
    assert status == 200
    assert answers[0]["code"] == 0
    code, error_type, message = error_of(answers[1])
    assert (code, error_type) == (-500, "PluginInvokeError")
    assert message == {
        "error_type": "InvokeRateLimitError",
        "message": "429",
        "args": {"description": "x"},
    }


# ------------------------------------------------------------------ before the stream


def refusal(door: World, **request: Any) -> tuple[int, int, str, Any]:
    status, body, headers = door.call("POST", DISPATCH, **request)
    assert headers["content-type"] == "application/json; charset=utf-8"
    [envelope] = events(body)
    return (status, *error_of(envelope))


def test_a_wrong_key_is_401(door: World) -> None:
    assert refusal(door, json_body={"data": TOOL}, key="wrong")[:3] == (
        401,
        -401,
        "PluginDaemonUnauthorizedError",
    )


def test_a_missing_plugin_header_is_400(door: World) -> None:
    assert refusal(door, json_body={"data": TOOL})[:3] == (
        400,
        -400,
        "PluginDaemonBadRequestError",
    )


@pytest.mark.parametrize("plugin", ["a/b", "acme/weather:0.1.2", "../..", "\u00e9"])
def test_a_plugin_that_is_not_installed_is_404(door: World, plugin: str) -> None:
    found = refusal(door, json_body={"data": TOOL}, headers={"X-Plugin-ID": plugin})
    assert found[:3] == (404, -404, "PluginNotFoundError")


@pytest.mark.parametrize("tenant", [OTHER_TENANT, "not-a-uuid"])
def test_T_S11_another_tenant_has_not_the_plugin(door: World, tenant: str) -> None:
    status, body, _ = door.call(
        "POST",
        f"/plugin/{tenant}/dispatch/tool/invoke",
        json_body={"data": TOOL, "tenant_id": TENANT},
        headers={"X-Plugin-ID": "acme/weather"},
    )
    assert status == 404
    assert error_of(events(body)[0])[1] == "PluginNotFoundError"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"data": {', "truncated"),
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"data": 5}', "Expected `object`"),
        (b'{"data": {"provider": "w", "tool": "\xff"}}', "utf-8"),
        (b'{"data": null}', "'Data' failed on the 'required' tag"),
        (b'{"user_id": "u"}', "'Data' failed on the 'required' tag"),
        (b'{"user_id": 5, "data": {}}', "$.user_id"),
        (b'{"data": {"provider": "w"}}', "'Tool' failed on the 'required' tag"),
    ],
)
def test_D_68_a_body_that_does_not_fit_is_400_with_the_reason(
    door: World, body: bytes, words: str
) -> None:
    headers = {"X-Plugin-ID": "acme/weather", "Content-Type": "application/json"}
    status, code, error_type, message = refusal(door, body=body, headers=headers)
    assert (status, code, error_type) == (400, -400, "PluginDaemonBadRequestError")
    assert words in message


def test_a_body_without_its_content_type_is_400(door: World) -> None:
    found = refusal(
        door, body=json.dumps({"data": TOOL}).encode(), headers={"X-Plugin-ID": "acme/weather"}
    )
    assert found[:2] == (400, -400)
    assert "Content-Type" in found[3]


def test_no_host_is_told_in_the_words_that_dify_looks_for(tmp_path) -> None:
    with world(tmp_path, PLUGINS) as door:
        door.install()
        door.services.calls.stop()
        found = refusal(door, json_body={"data": TOOL}, headers={"X-Plugin-ID": "acme/weather"})
    assert found[:3] == (500, -500, "PluginDaemonInternalServerError")
    assert "no available node" in found[3]
    assert "plugin runtime not found" in found[3]


# ------------------------------------------------------------------ by identifier


def by_identifier(door: World, identifier: str | None, body: Any) -> tuple[int, list[Any]]:
    headers = {} if identifier is None else {"X-Plugin-Unique-Identifier": identifier}
    status, text, _ = door.call(
        "POST", "/v2/invoke/dispatch/tool/invoke", json_body=body, headers=headers
    )
    return status, events(text)


def test_a_version_is_called_by_its_identifier(door: World) -> None:
    status, answers = by_identifier(door, WEATHER, {"tenant_id": TENANT, "data": TOOL})
    assert (status, len(answers)) == (200, 2)
    assert door.host.calls[-1].head.tenant == TENANT


@pytest.mark.parametrize(
    ("identifier", "tenant", "expected"),
    [
        (None, TENANT, (400, -400, "PluginDaemonBadRequestError")),
        ("x", TENANT, (400, -400, "PluginUniqueIdentifierError")),
        ("a/b:0.0.1@" + "0" * 64, TENANT, (404, -500, "PluginDaemonInternalServerError")),
        (WEATHER, None, (400, -400, "PluginDaemonBadRequestError")),
        (WEATHER, "", (400, -400, "PluginDaemonBadRequestError")),
        (WEATHER, "../../x", (400, -400, "PluginDaemonBadRequestError")),
    ],
)
def test_D_67_identifier_and_tenant_are_checked(
    door: World, identifier: str | None, tenant: str | None, expected: tuple[int, int, str]
) -> None:
    status, [answer] = by_identifier(door, identifier, {"tenant_id": tenant, "data": TOOL})
    assert (status, *error_of(answer)[:2]) == expected


# ------------------------------------------------------------------ ends


def test_a_client_that_leaves_cancels_the_session_at_the_host(door: World) -> None:
    import http.client

    connection = http.client.HTTPConnection(*door.address, timeout=20)
    headers = {
        "X-Api-Key": "secret",
        "X-Plugin-ID": "acme/silent",
        "Content-Type": "application/json",
    }
    connection.request("POST", DISPATCH, json.dumps({"data": TOOL}), headers)
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    answer.close()
    connection.close()
    assert door.host.cancelled_event.wait(patience(1))


def test_the_limit_of_a_call_is_the_settings(tmp_path) -> None:
    with world(tmp_path, PLUGINS, PLUGIN_MAX_EXECUTION_TIMEOUT="1") as door:
        door.install(WEATHER.replace("weather", "silent"))
        status, answers = door.dispatch("tool/invoke", TOOL, "acme/silent")
        assert status == 200
        error = error_of(answers[-1])[2]
        assert error["error_type"] == "DeadlineExceeded"
        assert error["args"]["owner"] == "PLUGIN_MAX_EXECUTION_TIMEOUT"
        assert door.host.cancelled_event.wait(patience(1))


def test_a_host_that_goes_ends_its_calls_typed(door: World) -> None:
    results: list[Any] = []
    waiting = gevent.spawn(
        lambda: results.append(door.dispatch("tool/invoke", TOOL, "acme/silent"))
    )
    assert door.host.opened_event.wait(5)
    gevent.sleep(0.05)
    door.services.calls.stop()
    waiting.join(5)
    [(status, answers)] = results
    assert status == 200
    assert error_of(answers[-1])[2]["error_type"] == "HostLost"


# ------------------------------------------------------------------ output rules


@pytest.mark.parametrize("mode", ["off", "warn", "enforce"])
def test_variables_are_held_against_the_declared_schema_by_mode(tmp_path, mode: str) -> None:
    with world(tmp_path, PLUGINS, TIDEGATE_OUTPUT_SCHEMA=mode) as door:
        door.install(WEATHER.replace("weather", "typed"))
        _, answers = door.dispatch("tool/invoke", {**TOOL, "tool": "typed"}, "acme/typed")
    assert answers[0]["code"] == 0
    if mode == "enforce":
        error = error_of(answers[1])[2]
        assert error["error_type"] == "OutputSchemaViolation"
        assert error["args"] == {"path": "$.degrees"}
    else:
        assert len(answers) == 1
