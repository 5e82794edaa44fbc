"""Every action through the whole product, answered by plugins made with the real SDK.

Models are those of the zoo, the agent that of the back-calls; both are asked there, too.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.databases import Backend
from tests.hosting import PLUGINS
from tests.stack import TENANT, Answer, Stack, running_stack
from tidegate.packages import build_package

pytestmark = pytest.mark.blocks_hub("packages are built in the test's process")
OAUTH = {"redirect_uri": "https://d.example/cb", "system_credentials": {"client_id": "c"}}
CALLBACK = b"GET /cb?code=xyz HTTP/1.1\r\nHost: d.example\r\n\r\n".hex()
RING = b"POST /ring HTTP/1.1\r\nHost: d.example\r\nContent-Length: 2\r\n\r\n{}".hex()
MODEL = {"provider": "zoo", "model": "m1", "credentials": {}}
TEXT = {"content": "abc", "content_type": "text"}
SUBSCRIPTION = {"endpoint": "https://d.example/t", "properties": {}, "expires_at": -1}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("home") / "tidegate"
    with backend.fresh() as servers, running_stack(home, LOG_LEVEL="DEBUG", **servers) as stack:
        for name in ("actor", "collector", "listener", "zoo"):
            stack.install(build_package(PLUGINS / name))
        yield stack


def ask(stack: Stack, plugin: str, action: str, **data: Any) -> Answer:
    return stack.call(f"tidegate/{plugin}", action, {"provider": plugin, **data})


def one(stack: Stack, plugin: str, action: str, **data: Any) -> Any:
    answer = ask(stack, plugin, action, **data)
    assert answer.error is None, answer.error
    [item] = answer.items
    return item


# ------------------------------------------------------------------ tools and endpoints


def test_a_tools_messages_of_each_kind_and_its_file(stack: Stack) -> None:
    answer = ask(
        stack, "actor", "tool/invoke", tool="act", credentials={}, tool_parameters={"n": 1 << 60}
    )
    assert answer.error is None
    kinds = [item["type"] for item in answer.items]
    assert kinds[:5] == ["text", "json", "link", "image", "variable"]
    assert answer.items[1]["message"]["json_object"] == {"parameters": {"n": 1 << 60}}
    parts = [item["message"] for item in answer.items[5:]]
    assert set(kinds[5:]) == {"blob_chunk"}
    assert b"".join(base64.b64decode(part["blob"]) for part in parts) == b"x" * 20_000


def test_tool_credentials_are_validated(stack: Stack) -> None:
    path = "tool/validate_credentials"
    assert one(stack, "actor", path, credentials={"key": "good"}) == {"result": True}
    answer = ask(stack, "actor", path, credentials={"key": "bad"})
    assert answer.error is not None
    assert answer.error["error_type"] == "ToolProviderCredentialValidationError"


def test_runtime_parameters_which_no_sdk_answers_end_empty(stack: Stack) -> None:
    answer = ask(stack, "actor", "tool/get_runtime_parameters", tool="act", credentials={})
    assert (answer.status, answer.items, answer.error) == (200, [], None)


@pytest.mark.parametrize(
    ("plugin", "action", "type"),
    [("actor", "act", "api-key"), ("listener", "provider", "unauthorized")],
)
def test_options_are_fetched(stack: Stack, plugin: str, action: str, type: str) -> None:
    found = one(
        stack, plugin, "dynamic_select/fetch_parameter_options", provider_action=action,
        parameter="topic", credentials={"key": "k"}, credential_type=type,
    )  # fmt: skip
    assert found["options"][0]["value"].startswith("topic")


@pytest.mark.parametrize("plugin", ["actor", "collector", "listener"])
def test_oauth_from_address_to_refreshed_credentials(stack: Stack, plugin: str) -> None:
    url = one(stack, plugin, "oauth/get_authorization_url", **OAUTH)
    assert url == {"authorization_url": "https://d.example/cb?client=c"}
    got = one(stack, plugin, "oauth/get_credentials", **OAUTH, raw_http_request=CALLBACK)
    assert got["credentials"] == {"access_token": "xyz"}
    assert got["expires_at"] == (1788888888 if plugin == "actor" else -1)
    again = one(stack, plugin, "oauth/refresh_credentials", **OAUTH, credentials=got["credentials"])
    assert again["credentials"] == {"access_token": "xyz again"}


def test_a_webhook_from_socket_to_plugin_and_back(stack: Stack) -> None:
    plugins = stack.data("GET", "list?page=1&page_size=100")["list"]
    identifier = next(row["plugin_unique_identifier"] for row in plugins if row["name"] == "actor")
    body = {
        "plugin_unique_identifier": identifier,
        "user_id": "u",
        "name": "hook",
        "settings": {"token": "the-secret"},
    }
    prefix = f"/plugin/{TENANT}/endpoint/"
    kind = {"Content_Type": "application/json"}
    _, raw = stack.ask("POST", prefix + "setup", json.dumps(body).encode(), **kind)
    assert json.loads(raw)["data"] is True, raw
    _, raw = stack.ask("GET", prefix + "list?page=1&page_size=10")
    [endpoint] = json.loads(raw)["data"]
    assert endpoint["settings"] == {"token": "th******et"}
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=20)
    connection.request("POST", f"/e/{endpoint['hook_id']}/echo/a/b?x=1", b"the body")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("X-Hook")) == (201, "yes")
    assert answer.read() == b"a/b\nx=1\nthe-secret\nthe body"
    connection.request("POST", f"/e/{endpoint['hook_id']}/nowhere")
    assert connection.getresponse().status == 404
    connection.close()


# ------------------------------------------------------------------ datasources


def test_datasources_of_each_kind(stack: Stack) -> None:
    def source(action: str, provider: str, name: str, **data: Any) -> list[Any]:
        asked = {"provider": provider, "datasource": name, "credentials": {}, **data}
        answer = stack.call("tidegate/collector", f"datasource/{action}", asked)
        assert answer.error is None, answer.error
        return answer.items

    crawled = source(
        "get_website_crawl",
        "collector",
        "website",
        datasource_parameters={"url": "https://x.example"},
    )
    assert [item["result"]["status"] for item in crawled] == ["processing", "completed"]
    [pages] = source("get_online_document_pages", "documents", "document", datasource_parameters={})
    assert pages["result"][0]["pages"][0]["page_id"] == "p"
    page = {"workspace_id": "w", "page_id": "p", "type": "page"}
    [content] = source("get_online_document_page_content", "documents", "document", page=page)
    assert content["message"]["variable_value"] == "what stands on p"
    request = {"bucket": "b", "prefix": "/", "max_keys": 20}
    [browsed] = source("online_drive_browse_files", "drives", "drive", request=request)
    assert browsed["result"][0]["files"][0]["name"] == "/a"
    request = {"bucket": None, "id": "1"}
    blobs = source("online_drive_download_file", "drives", "drive", request=request)
    content = b"".join(base64.b64decode(item["message"]["blob"]) for item in blobs)
    assert content == b"x" * 20_000


def test_datasource_credentials_are_validated(stack: Stack) -> None:
    path = "datasource/validate_credentials"
    assert one(stack, "collector", path, credentials={"key": "good"}) == {"result": True}
    assert ask(stack, "collector", path, credentials={"key": "bad"}).error is not None


# ------------------------------------------------------------------ triggers


def test_a_subscription_from_its_making_to_its_end(stack: Stack) -> None:
    given: dict[str, Any] = {"credentials": {}, "credential_type": "api-key"}
    made = one(
        stack, "listener", "trigger/subscribe", endpoint="https://d.example/t",
        parameters={"topic": "t"}, **given,
    )["subscription"]  # fmt: skip
    assert (made["endpoint"], made["properties"]) == ("https://d.example/t", {"type": "api-key"})
    fresh = one(stack, "listener", "trigger/refresh", subscription=made, **given)
    assert fresh["subscription"]["expires_at"] == 1788888888
    left = one(stack, "listener", "trigger/unsubscribe", subscription=made, **given)
    assert left["subscription"]["success"] is True


def test_an_event_from_the_webhook_to_its_variables(stack: Stack) -> None:
    heard = one(
        stack, "listener", "trigger/dispatch_event", subscription=SUBSCRIPTION,
        raw_http_request=RING,
    )  # fmt: skip
    assert (heard["user_id"], heard["events"]) == ("99", ["rang"])
    assert bytes.fromhex(heard["response"]).startswith(b"HTTP/1.1 202")
    event = {
        "event": "rang",
        "raw_http_request": RING,
        "subscription": SUBSCRIPTION,
        "payload": heard["payload"],
        "credentials": {},
        "credential_type": "unauthorized",
    }
    found = one(stack, "listener", "trigger/invoke_event", parameters={}, **event)
    assert found == {
        "variables": {"path": "/ring", "payload": {"topic": "t"}},
        "cancelled": False,
    }
    ignored = one(stack, "listener", "trigger/invoke_event", parameters={"ignore": 1}, **event)
    assert ignored["cancelled"] is True


def test_trigger_credentials_are_validated(stack: Stack) -> None:
    path = "trigger/validate_credentials"
    assert one(stack, "listener", path, credentials={"key": "good"}) == {"result": True}
    answer = ask(stack, "listener", path, credentials={"key": "bad"})
    assert answer.error is not None
    assert answer.error["error_type"] == "TriggerProviderCredentialValidationError"


# ------------------------------------------------------------------ models


@pytest.mark.parametrize(
    ("action", "data", "key"),
    [
        ("llm/num_tokens", {"model_type": "llm", "prompt_messages": [], "tools": []}, "num_tokens"),
        (
            "text_embedding/invoke",
            {"model_type": "text-embedding", "texts": ["a"], "input_type": "query"},
            "embeddings",
        ),
        (
            "text_embedding/num_tokens",
            {"model_type": "text-embedding", "texts": ["ab"]},
            "num_tokens",
        ),
        (
            "multimodal_embedding/invoke",
            {"model_type": "text-embedding", "documents": [TEXT], "input_type": "document"},
            "embeddings",
        ),
        ("rerank/invoke", {"model_type": "rerank", "query": "q", "docs": ["a", "b"]}, "docs"),
        (
            "multimodal_rerank/invoke",
            {"model_type": "rerank", "query": TEXT, "docs": [TEXT]},
            "docs",
        ),
        ("tts/model/voices", {"model_type": "tts", "language": "en-US"}, "voices"),
        ("speech2text/invoke", {"model_type": "speech2text", "file": "0001"}, "result"),
        ("moderation/invoke", {"model_type": "moderation", "text": "x"}, "result"),
        ("model/validate_model_credentials", {"model_type": "llm"}, "result"),
        ("model/schema", {"model_type": "llm"}, "model_schema"),
    ],
)
def test_a_models_single_answers(stack: Stack, action: str, data: dict[str, Any], key: str) -> None:
    answer = stack.call("tidegate/zoo", action, {**MODEL, **data})
    assert answer.error is None, answer.error
    [item] = answer.items
    assert key in item


def test_provider_credentials_are_validated(stack: Stack) -> None:
    found = one(stack, "zoo", "model/validate_provider_credentials", credentials={"word": "x"})
    assert found["result"] is True


def test_a_language_model_streams_and_speaks(stack: Stack) -> None:
    messages = [{"role": "user", "content": "hi"}]
    data = {
        **MODEL, "model_type": "llm", "prompt_messages": messages, "model_parameters": {},
        "tools": [], "stop": [], "stream": True,
    }  # fmt: skip
    answer = stack.call("tidegate/zoo", "llm/invoke", data)
    assert answer.error is None, answer.error
    text = "".join(item["delta"]["message"]["content"] for item in answer.items)
    assert text.startswith("m1 heard hi")
    data = {**MODEL, "model_type": "tts", "content_text": "x", "voice": "v", "tenant_id": TENANT}
    answer = stack.call("tidegate/zoo", "tts/invoke", data)
    assert answer.error is None, answer.error
    assert answer.items


def test_a_language_model_that_is_polled(stack: Stack) -> None:
    def poll(step: str, **data: Any) -> Any:
        asked = {**MODEL, "model": "polled", "model_type": "llm", **data}
        path, body, headers = stack.request("tidegate/zoo", f"model/polling/{step}", asked)
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=20)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status == 200, text
        assert answer.getheader("Content-Type") == "application/json; charset=utf-8"
        return json.loads(text)["data"]

    messages = [{"role": "user", "content": "hi"}]
    begun = poll("start", prompt_messages=messages, model_parameters={}, stream=True)
    assert (begun["status"], begun["plugin_state"]) == ("running", {"asked": "hi"})
    ended = poll("check", plugin_state=begun["plugin_state"])
    assert ended["status"] == "succeeded"
    assert ended["result"]["message"]["content"] == "polled heard hi"


# ------------------------------------------------------------------ what is not said


CANARY = "canary-5e1f-of-a-request"


@pytest.mark.parametrize("data", [
    {"credentials": {"key": CANARY}, "tool": "act", "tool_parameters": {"word": CANARY}},
    {"credentials": {"key": CANARY}},
    {"credentials": CANARY, "tool": "act", "tool_parameters": [CANARY]},
    {"credentials": {"key": CANARY}, "tool": "no such tool", "tool_parameters": {}},
])  # fmt: skip
def test_D_38_requests_are_asked_with_a_canary(stack: Stack, data: dict[str, Any]) -> None:
    """Right, incomplete, of wrong types, about what is not there: see the next test."""
    raw = f"GET /cb?code={CANARY} HTTP/1.1\r\nHost: d\r\n\r\n".encode().hex()
    for plugin in ("actor", "nobody"):
        for action in ("tool/invoke", "tool/validate_credentials", "oauth/get_credentials"):
            ask(stack, plugin, action, **OAUTH, raw_http_request=raw, **data)
            ask(stack, plugin, action, raw_http_request=raw[:-3], **data)
    settings = {"token": CANARY, "more": {"secret": CANARY}}
    for name in ("canary", ""):
        body = {"endpoint_id": CANARY, "user_id": "u", "name": name, "settings": settings}
        for deed in ("setup", "update", "remove"):
            path = f"/plugin/{TENANT}/endpoint/{deed}"
            stack.ask("POST", path, json.dumps(body).encode(), Content_Type="application/json")


def test_D_38_and_nothing_of_it_is_in_a_log(stack: Stack) -> None:
    logs = {path: path.read_bytes() for path in stack.home.rglob("*.log*") if path.is_file()}
    logs[stack.log] = stack.log.read_bytes()
    assert any(b"DEBUG" in text for text in logs.values())
    for secret in (CANARY, CANARY.encode().hex(), CALLBACK, RING, "the-secret"):
        said = [line for text in logs.values() for line in text.splitlines()
                if secret.encode() in line]  # fmt: skip
        assert said == []
