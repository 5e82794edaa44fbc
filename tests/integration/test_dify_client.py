"""What users of Dify do, as Dify's client does it: strict about each answer, over kept connections.

Each test is a user's afternoon; single actions and routes have tests of their own.
"""

from __future__ import annotations

import json
import time
import uuid
from contextlib import closing
from typing import Any

import gevent
import pytest

from tests.debugging import Developer
from tests.fake_dify import KEY, Exchange, stream
from tests.hosting import PLUGINS, package_of
from tests.integration.dify_client import DifyClient, Refused
from tests.integration.dify_desk import GREET, TALK, Desk, crypt, desk, shared
from tests.integration.test_backcalls import chunk
from tests.patience import patience, wait_until
from tests.stack import TENANT
from tidegate.packages import build_package

__all__ = ["desk", "shared"]
pytestmark = pytest.mark.blocks_hub("packages are built in the test's process")

HELLO = PLUGINS.parent.parent / "examples" / "hello"
#: What Dify's models of a row need; it fails the whole list where one is missing.
ROW = {
    "id", "created_at", "updated_at", "tenant_id", "endpoints_setups", "endpoints_active",
    "runtime_type", "source", "meta", "plugin_id", "plugin_unique_identifier", "version",
    "checksum", "declaration", "name", "installation_id",
}  # fmt: skip
DECLARATION = {
    "version", "author", "name", "description", "icon", "label", "created_at", "resource",
    "plugins", "meta",
}  # fmt: skip
ENDPOINT = {
    "id", "created_at", "updated_at", "settings", "tenant_id", "plugin_id", "expired_at",
    "declaration", "name", "enabled", "hook_id",
}  # fmt: skip
CONFIG = {
    "name", "type", "scope", "required", "default", "options", "multiple", "label", "help", "url",
    "placeholder",
}  # fmt: skip
#: Ends of lines for httpx, not for SSE.
ODD_ENDS = "a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg"


def newer(scratch: Any) -> bytes:
    """The sample tool's next version: it greets otherwise, and not everybody."""
    manifest = (HELLO / "manifest.yaml").read_text().replace("version: 0.0.1", "version: 0.1.0", 1)
    tool = (HELLO / "tools" / "greet.py").read_text().replace("Hello", "Moin")
    refusal = f'if name == "nobody":\n            raise ValueError({ODD_ENDS!r})\n        '
    tool = tool.replace("count = ", f"{refusal}count = ", 1)
    return package_of(HELLO, scratch, files={"manifest.yaml": manifest, "tools/greet.py": tool})


# ------------------------------------------------------------------ the life of a tool


def test_a_tool_is_installed_used_upgraded_removed_and_comes_back(desk: Desk, tmp_path) -> None:
    client, package = desk.client, build_package(HELLO)
    uploaded = client.upload(package)
    old = uploaded["unique_identifier"]
    assert uploaded["manifest"].keys() >= DECLARATION
    names = {"plugin_unique_identifier": old, "PluginUniqueIdentifier": old}
    decoded = client.get("management/decode/from_identifier", **names)
    assert decoded.keys() == uploaded.keys()
    task = install(desk, old)
    assert [one["message"] for one in task["plugins"]] == ["installed"]
    again = {"plugin_unique_identifiers": [old], "source": "package", "metas": [{}]}
    assert client.post("management/install/identifiers", again)["all_installed"]
    row = desk.row("hello")
    assert row is not None
    assert row.keys() >= ROW
    assert client.asset(row["declaration"]["icon"]).startswith(b"<svg")
    assert desk.greet("Ada").startswith("Hello, Ada!")
    new = upgrade(desk, old, newer(tmp_path))
    assert desk.greet("Ada").startswith("Moin, Ada!")
    with pytest.raises(Refused) as refused:
        desk.greet("nobody")
    assert (refused.value.kind, refused.value.text) == ("ValueError", ODD_ENDS)
    asked = {"plugin_unique_identifiers": [old, new]}
    missing = client.post("management/installation/missing", asked)
    assert missing == [{"plugin_unique_identifier": old, "current_identifier": new}]
    remove(desk, row["installation_id"])
    assert desk.install(package) == old
    assert desk.greet("Ada").startswith("Hello, Ada!")


def install(desk: Desk, identifier: str) -> Any:
    """Install what was uploaded; the task as it ended."""
    asked = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
    answer = desk.client.post("management/install/identifiers", asked)
    assert answer["all_installed"] is False
    task = desk.client.wait_task(answer["task_id"])
    assert task["status"] == "success"
    assert (task["total_plugins"], task["completed_plugins"]) == (1, 1)
    assert desk.client.post(f"management/install/tasks/{task['id']}/delete/{identifier}") is True
    return task


def upgrade(desk: Desk, old: str, package: bytes) -> str:
    """As from GitHub: its ``meta`` stays with the plugin. The new identifier."""
    new = str(desk.client.upload(package)["unique_identifier"])
    meta = {"repo": "tidegate/hello", "version": "0.1.0", "package": "hello.difypkg"}
    names = {"original_plugin_unique_identifier": old, "new_plugin_unique_identifier": new}
    asked = {**names, "source": "github", "meta": meta}
    task = desk.client.wait_task(
        desk.client.post("management/install/upgrade", asked)["task_id"]
    )  # fmt: skip
    [entry] = task["plugins"]
    assert (entry["status"], entry["message"]) == ("success", "upgraded")
    assert (entry["labels"], entry["icon"], entry["source"]) == ({"en_US": ""}, "", "github")
    row = desk.row("hello")
    assert row is not None
    assert (row["plugin_unique_identifier"], row["meta"]) == (new, meta)
    return new


def remove(desk: Desk, installation: str) -> None:
    """Uninstall; whoever asks for the tool hears that it is not there, and of what type that is."""
    client = desk.client
    assert client.post("management/uninstall", {"plugin_installation_id": installation}) is True
    assert desk.row("hello") is None
    with pytest.raises(Refused, match=r"^plugin not found") as listed:
        client.get("management/tool", provider="hello", plugin_id="tidegate/hello")
    assert (listed.value.code, listed.value.outer) == (-404, "PluginNotFoundError")
    with pytest.raises(Refused) as called:
        desk.greet("Ada")
    assert (called.value.code, called.value.outer) == (-404, "PluginNotFoundError")
    asked = {"provider_ids": [{"plugin_id": "tidegate/hello", "provider_name": "hello"}]}
    assert client.post("management/tools/check_existence", asked) == [False]


def test_a_package_that_is_none_is_refused_in_an_answer_that_dify_reads(desk: Desk) -> None:
    with pytest.raises(Refused) as refused:
        desk.client.upload(b"not a zip")
    assert (refused.value.code, refused.value.outer) == (-400, "PluginDaemonBadRequestError")


def test_a_category_of_plugins_is_listed_for_newer_clients(desk: Desk) -> None:
    desk.install(build_package(HELLO))
    tools = desk.client.get("management/tool/list", page=1, page_size=256)
    assert "hello" in [row["name"] for row in tools["list"]]
    assert tools["has_more"] is False
    assert desk.client.get("management/trigger/list", page=1, page_size=256)["list"] == []


# ------------------------------------------------------------------ streams


def test_fourteen_chats_at_once_are_whole_and_lists_are_answered_beside_them(desk: Desk) -> None:
    desk.install(build_package(HELLO))
    people = [f"person {number}" for number in range(14)]
    chats = [gevent.spawn(apart, desk, name) for name in people]
    while not all(chat.ready() for chat in chats):
        row = desk.row("hello")
        assert row is not None
        assert row.keys() >= ROW
    said = [chat.get() for chat in chats]
    assert said == [f"Hello, {name}! Nice to meet you.\n" for name in people]


def apart(desk: Desk, name: str) -> str:
    """One greeting through a client of its own."""
    with closing(DifyClient(desk.stack.port, desk.stack.key)) as client:
        return Desk(desk.stack, desk.dify, client, desk.debug_port).greet(name)


def test_who_stops_a_stream_leaves_nothing_running_and_goes_on(desk: Desk) -> None:
    desk.install(build_package(HELLO))
    data = {**GREET, "tool_parameters": {"name": "you", "count": 100}}  # thirty seconds of it
    assert desk.client.first("tool/invoke", "tidegate/hello", data, **TALK)["type"] == "text"
    stopped = time.monotonic()
    wait_until(lambda: active(desk) == 0, seconds=20)
    assert time.monotonic() - stopped < patience(2)
    assert desk.greet("Ada").startswith("Hello, Ada!")


def active(desk: Desk) -> int:
    """Dispatch calls that the server knows to be open."""
    _, body = desk.stack.ask("GET", "/health/check")
    return int(json.loads(body)["active_dispatch_requests"])


def test_a_page_that_asks_ten_times_needs_one_connection(desk: Desk) -> None:
    with closing(DifyClient(desk.stack.port, desk.stack.key)) as client:
        pages = [client.get("management/tools", page=1, page_size=256) for _ in range(10)]
        assert client.opened == 1
    assert pages.count(pages[0]) == len(pages)


# ------------------------------------------------------------------ endpoints


def test_an_endpoint_lives_from_setup_to_removal(desk: Desk) -> None:
    client, identifier = desk.client, desk.install(build_package(PLUGINS / "actor"))
    form = {"user_id": "u", "plugin_unique_identifier": identifier, "name": "hook"}
    with pytest.raises(Refused, match="failed to validate settings: missing required setting"):
        client.post("endpoint/setup", {**form, "settings": {}})
    assert client.post("endpoint/setup", {**form, "settings": {"token": "the-secret"}}) is True
    [row] = client.get("endpoint/list/plugin", plugin_id="tidegate/actor", page=1, page_size=10)
    assert row.keys() >= ENDPOINT
    assert row["expired_at"] == "2050-01-01T00:00:00Z"
    assert row["settings"] == {"token": "th******et"}
    assert hook(desk, row) == (201, b"there\n\nthe-secret\nhello")

    change = {"endpoint_id": row["id"], "user_id": "u", "name": "other"}
    assert client.post("endpoint/update", {**change, "settings": {"token": "another"}}) is True
    assert hook(desk, row) == (201, b"there\n\nanother\nhello")
    one = {"endpoint_id": row["id"]}
    assert client.post("endpoint/disable", one) is True
    assert refusal(*hook(desk, row)) == (404, -404)
    assert client.post("endpoint/enable", one) is True
    assert client.post("endpoint/remove", one) is True
    assert refusal(*hook(desk, row)) == (404, -400)
    asked = [call.body["opt"] for call in encryptions(desk)]
    assert [one for one in asked if one != "decrypt"] == ["encrypt", "encrypt", "clear", "clear"]


def hook(desk: Desk, row: dict[str, Any]) -> tuple[int, bytes]:
    """What somebody gets who knows the endpoint's address."""
    return desk.stack.ask("POST", f"/e/{row['hook_id']}/echo/there", b"hello")


def refusal(status: int, body: bytes) -> tuple[int, int]:
    """(HTTP status, code) of an endpoint that does not answer."""
    envelope = json.loads(body)
    assert json.loads(envelope["message"])["message"] == "endpoint not found"
    return status, envelope["code"]


def encryptions(desk: Desk) -> list[Exchange]:
    """What Dify was asked about settings; each request as its model of it wants it."""
    calls = [call for call in desk.dify.calls if call.path == "invoke/encrypt"]
    for call in calls:
        assert call.headers["x-inner-api-key"] == KEY
        assert (call.body["namespace"], call.body["tenant_id"]) == ("endpoint", TENANT)
        assert all(set(one) == CONFIG for one in call.body["config"])
    return calls


def test_a_dify_that_is_asked_while_it_asks_is_answered(desk: Desk) -> None:
    """One page of endpoints: from Dify to us, back to Dify, and from there to us again."""
    identifier = desk.install(build_package(PLUGINS / "actor"))
    form = {"user_id": "u", "plugin_unique_identifier": identifier, "settings": {"token": "longer"}}
    for number in range(3):
        desk.client.post("endpoint/setup", {**form, "name": str(number)})
    desk.dify.on("invoke/encrypt", lambda exchange: greet_and_crypt(desk, exchange))
    first, second = (listed(desk) for _ in range(2))
    assert [row["name"] for row in first] == ["2", "1", "0"]
    assert {row["settings"]["token"] for row in first} == {"******"}
    assert second == first
    asked = [call.body["opt"] for call in encryptions(desk)]
    assert asked.count("decrypt") == len(first), "once for each is enough"
    for row in first:
        desk.client.post("endpoint/remove", {"endpoint_id": row["id"]})


def listed(desk: Desk) -> Any:
    """The endpoints of the actor, as the plugin page asks for them."""
    return desk.client.get("endpoint/list/plugin", plugin_id="tidegate/actor", page=1, page_size=9)


def greet_and_crypt(desk: Desk, exchange: Exchange) -> Any:
    """A Dify that needs the server for its answer."""
    with closing(DifyClient(desk.stack.port, desk.stack.key)) as client:
        client.get("management/list", page=1, page_size=256, response_type="paged")
    return crypt(exchange)


# ------------------------------------------------------------------ triggers and datasources

OAUTH = {"redirect_uri": "https://d.example/cb", "system_credentials": {"client_id": "c"}}
CALLBACK = b"GET /cb?code=xyz HTTP/1.1\r\nHost: d.example\r\n\r\n".hex()
RING = b"POST /ring HTTP/1.1\r\nHost: d.example\r\nContent-Length: 2\r\n\r\n{}".hex()


def test_a_trigger_is_subscribed_rings_and_starts_a_workflow(desk: Desk) -> None:
    desk.install(build_package(PLUGINS / "listener"))
    plugin, client = "tidegate/listener", desk.client
    assert [
        row["provider"] for row in client.get("management/triggers", page=1, page_size=256)
    ] == ["listener"]
    data = {"provider": "listener", "credentials": {"key": "bad"}}
    with pytest.raises(Refused, match="bad key") as refused:
        client.first("trigger/validate_credentials", plugin, data, user_id="u")
    assert refused.value.kind == "TriggerProviderCredentialValidationError"
    held = {"provider": "listener", "credentials": {}, "credential_type": "unauthorized"}
    asked = {**held, "endpoint": "https://d.example/t", "parameters": {"topic": "t"}}
    subscription = client.first("trigger/subscribe", plugin, asked, user_id="u")["subscription"]
    assert subscription["endpoint"] == "https://d.example/t"
    ring = {**held, "subscription": subscription, "raw_http_request": RING}
    heard = client.first("trigger/dispatch_event", plugin, ring)  # nobody's: Dify knows no user
    assert bytes.fromhex(heard["response"]).startswith(b"HTTP/1.1 202")
    event = {**ring, "event": heard["events"][0], "parameters": {}, "payload": heard["payload"]}
    started = client.first("trigger/invoke_event", plugin, event, user_id=heard["user_id"])
    assert started["variables"] == {"path": "/ring", "payload": {"topic": "t"}}
    assert started["cancelled"] is False


def test_datasources_give_a_crawl_a_page_and_a_file(desk: Desk) -> None:
    desk.install(build_package(PLUGINS / "collector"))
    plugin, client = "tidegate/collector", desk.client
    [row] = client.get("management/datasources", page=1, page_size=256)
    assert row["declaration"]["identity"]["name"] == row["provider"]
    held = {"provider": "collector", "credentials": {"key": "good"}}
    bad = {**held, "credentials": {"key": "bad"}}
    with pytest.raises(Refused, match="bad key") as refused:
        client.first("datasource/validate_credentials", plugin, bad, user_id="u")
    assert refused.value.kind == "ToolProviderCredentialValidationError"
    crawl = {**held, "datasource": "website", "datasource_parameters": {"url": "https://a.example"}}
    steps = list(client.stream("datasource/get_website_crawl", plugin, crawl, user_id="u"))
    assert [step["result"]["status"] for step in steps] == ["processing", "completed"]
    request = {"id": "1", "bucket": None}
    download = {**held, "provider": "drives", "datasource": "drive", "request": request}
    file = list(client.stream("datasource/online_drive_download_file", plugin, download))
    assert [part["type"] for part in file] == ["blob"]  # whole: Dify merges no parts here


def test_oauth_goes_from_an_address_to_fresh_credentials(desk: Desk) -> None:
    desk.install(build_package(PLUGINS / "collector"))
    plugin, held = "tidegate/collector", {"provider": "collector", **OAUTH}
    url = desk.client.first("oauth/get_authorization_url", plugin, held, user_id="u")
    assert url == {"authorization_url": "https://d.example/cb?client=c"}
    back = {**held, "raw_http_request": CALLBACK}
    got = desk.client.first("oauth/get_credentials", plugin, back, user_id="u")
    assert (got["credentials"], got["metadata"]["name"]) == ({"access_token": "xyz"}, "Ada")
    again = {**held, "credentials": got["credentials"]}
    fresh = desk.client.first("oauth/refresh_credentials", plugin, again, user_id="u")
    assert fresh["credentials"] == {"access_token": "xyz again"}


# ------------------------------------------------------------------ agents and developers


def test_an_agent_asks_dify_and_odd_line_ends_reach_the_user(desk: Desk, tmp_path) -> None:
    asking = (PLUGINS / "backcaller" / "asking.py").read_text(encoding="utf-8")
    desk.install(package_of(PLUGINS / "backagent", tmp_path, files={"asking.py": asking}))
    desk.dify.on("invoke/llm", stream(chunk(ODD_ENDS), chunk("", 1, last=True)))
    data = {
        "agent_strategy_provider": "backagent",
        "agent_strategy": "ask",
        "agent_strategy_params": {"what": "llm"},
    }
    tools = {"context": {"credentials": {"tool_credentials": {}}}}
    client = desk.client
    answer = list(
        client.stream("agent_strategy/invoke", "tidegate/backagent", data, **TALK, **tools)
    )
    said = [one["message"]["json_object"]["text"] for one in answer if one["type"] == "json"]
    assert "".join(said) == ODD_ENDS
    [asked] = [call for call in desk.dify.calls if call.path == "invoke/llm"]
    assert asked.headers["content-type"] == "application/json"
    named = {name: asked.body[name] for name in ("tenant_id", "user_id", "type", "stream")}
    assert named == {"tenant_id": TENANT, "user_id": "u", "type": "llm", "stream": True}


def test_a_developer_connects_with_the_key_that_the_page_shows(desk: Desk) -> None:
    key = desk.client.post("debugging/key")["key"]
    assert str(uuid.UUID(key)) == key
    assert desk.client.post("debugging/key")["key"] == key
    developer = Developer(desk.debug_port)
    with closing(developer.socket):
        developer.register(key)
        row = wait_until(lambda: desk.row("kitchen"))
        assert row.keys() >= ROW
        assert (row["runtime_type"], row["source"]) == ("remote", "remote")
        tool = desk.client.get("management/tool", provider="kitchen", plugin_id=row["plugin_id"])
        assert tool["plugin_unique_identifier"] == row["plugin_unique_identifier"]
        call = gevent.spawn(cook, desk, row["plugin_id"])
        session = answered(developer)
        developer.text(session, "done")
        developer.answer(session, "end", {})
        assert call.get(timeout=20) == ["done"]
    wait_until(lambda: desk.row("kitchen") is None)


def answered(developer: Developer) -> str:
    """The session of the call that comes next; what is no call is passed over."""
    while not (request := developer.request()).get("session_id"):
        continue
    return str(request["session_id"])


def cook(desk: Desk, plugin: str) -> list[str]:
    """Call the developer's tool, as Dify does in another of its workers."""
    data = {**GREET, "provider": "kitchen", "tool": "cook", "tool_parameters": {}}
    with closing(DifyClient(desk.stack.port, desk.stack.key)) as client:
        return [one["message"]["text"] for one in client.stream("tool/invoke", plugin, data)]
