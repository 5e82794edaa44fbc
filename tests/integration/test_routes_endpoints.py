"""Endpoints and their webhooks end to end (spec/http/05, spec/http/01 section 3.15)."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.databases import Backend
from tests.integration.dify_stub import Dify, dify_stub
from tests.integration.door_world import OTHER_TENANT, TENANT, World, error_of, opened, world
from tests.patience import patience
from tidegate.storage import endpoints, installations
from tidegate.wire.heads import PluginHead

HOOKED = "acme/hooked:0.1.0@" + "9f" * 32
SETTINGS = [
    {"name": "token", "type": "secret-input", "required": True, "label": {"en_US": "Token"}},
    {"name": "plain", "type": "text-input", "required": False},
]
DECLARATION = {
    "resource": {"permission": {"endpoint": {"enabled": True}}},
    "endpoint": {
        "settings": SETTINGS,
        "endpoints": [{"path": "/x", "method": "GET", "hidden": False}],
    },
}


class Scripted:
    """A plugin that answers with what the test put here, or waits."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.error: bytes = b""
        self.wait_after = -1
        self.let_go = Event()

    def __call__(self, call: Any) -> None:
        for index, chunk in enumerate(self.chunks):
            if index == self.wait_after:
                self.let_go.wait(10)
            call.send(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode())
            gevent.sleep(0)
        if self.wait_after >= len(self.chunks):
            self.let_go.wait(10)
        if self.error:
            call.fail(self.error)
        else:
            call.finish()


def part(text: str | bytes | None = None, **more: Any) -> dict[str, Any]:
    if text is None:
        return more
    data = text.encode() if isinstance(text, str) else text
    return {**more, "result": data.hex()}


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> Iterator[tuple[World, Dify, Scripted]]:
    """One door for all tests that need no other settings."""
    plugin = Scripted()
    with dify_stub() as dify, backend.fresh() as servers:
        environ = {"DIFY_INNER_API_URL": dify.url, "DIFY_INNER_API_KEY": "ikey", **servers}
        folder = tmp_path_factory.mktemp("door")
        with world(folder, {"acme/hooked": plugin}, **environ) as made:
            made.install(HOOKED, DECLARATION)
            # what is opened at the first request belongs to the door, not to the test
            made.call("GET", f"/e/{hook_of(made)}/x", key="")
            yield made, dify, plugin


@pytest.fixture
def door(shared: tuple[World, Dify, Scripted]) -> World:
    made, dify, plugin = shared
    plugin.__init__()  # type: ignore[misc]
    dify.broken = False
    made.host.cancelled_event.clear()
    made.install(HOOKED, DECLARATION)
    for row in listed(made):
        change(made, "remove", endpoint_id=row["id"])
    dify.asked.clear()
    return made


@pytest.fixture
def dify(shared: tuple[World, Dify, Scripted]) -> Dify:
    shared[1].broken = False
    return shared[1]


@pytest.fixture
def plugin(shared: tuple[World, Dify, Scripted]) -> Scripted:
    shared[2].__init__()  # type: ignore[misc]
    return shared[2]


def set_up(door: World, **changed: Any) -> tuple[int, dict[str, Any]]:
    body = {
        "plugin_unique_identifier": HOOKED,
        "user_id": "u1",
        "name": "mine",
        "settings": {"token": "secret-token", "plain": "visible", "unknown": {"k": 1}},
        **changed,
    }
    return door.envelope("POST", "endpoint/setup", json_body=body)


def listed(door: World, path: str = "endpoint/list", **query: Any) -> list[dict[str, Any]]:
    _, envelope = door.envelope("GET", path, query={"page": 1, "page_size": 100, **query})
    assert envelope["code"] == 0, envelope
    rows: list[dict[str, Any]] = envelope["data"]
    return rows


def hook_of(door: World) -> str:
    assert set_up(door)[1]["data"] is True
    return str(listed(door)[0]["hook_id"])


def change(door: World, deed: str, **body: Any) -> tuple[int, dict[str, Any]]:
    return door.envelope("POST", f"endpoint/{deed}", json_body=body)


def counters(door: World) -> tuple[int, int]:
    with door.services.database.read() as conn:
        row = installations.find(conn, TENANT, "acme/hooked")
    assert row is not None
    return row.endpoints_setups, row.endpoints_active


# ------------------------------------------------------------------ management


def test_an_endpoint_is_set_up_and_listed_masked(door: World, dify: Dify) -> None:
    assert set_up(door) == (200, {"code": 0, "message": "success", "data": True})
    [row] = listed(door)
    assert row.pop("created_at")
    assert row.pop("updated_at")
    endpoint_id, hook = row.pop("id"), row.pop("hook_id")
    assert len(hook) == 16
    assert row == {
        "name": "mine",
        "tenant_id": TENANT,
        "user_id": "u1",
        "plugin_id": "acme/hooked",
        "expired_at": "2050-01-01T00:00:00Z",
        "enabled": True,
        "settings": {"token": "se********en", "plain": "visible", "unknown": {"k": 1}},
        "declaration": DECLARATION["endpoint"],
    }
    assert dify.asked[0]["identity"] == endpoint_id
    assert (dify.asked[0]["tenant_id"], dify.asked[0]["user_id"]) == (TENANT, "u1")
    assert counters(door) == (1, 1)


def test_what_is_stored_of_a_secret_is_its_cipher(door: World) -> None:
    set_up(door)
    with door.services.database.read() as conn:
        [row] = endpoints.page(conn, TENANT, 0, 10)
    assert row.settings == {
        "token": "sealed:nekot-terces",
        "plain": "visible",
        "unknown": {"k": 1},
    }


def test_without_dify_secrets_are_sealed_here(tmp_path, plugin: Scripted) -> None:
    with world(tmp_path, {"acme/hooked": plugin}) as door:
        door.install(HOOKED, DECLARATION)
        plugin.chunks = [part("x", status=200)]
        status, body, _ = door.call("GET", f"/e/{hook_of(door)}/x", key="")
        assert (status, body) == (200, b"x")
        assert door.host.line()["data"]["settings"]["token"] == "secret-token"
        with door.services.database.read() as conn:
            [row] = endpoints.page(conn, TENANT, 0, 10)
        assert "secret-token" not in json.dumps(row.settings)


def test_D_28_nothing_stays_when_the_secrets_cannot_be_encrypted(door: World, dify: Dify) -> None:
    dify.broken = True
    status, envelope = set_up(door)
    assert (status, *error_of(envelope)[:2]) == (200, -500, "PluginDaemonInternalServerError")
    dify.broken = False
    assert listed(door) == []
    assert counters(door) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"settings": {}}, (200, -400, "PluginDaemonBadRequestError")),
        ({"settings": {"token": 1}}, (200, -400, "PluginDaemonBadRequestError")),
        ({"name": ""}, (400, -400, "PluginDaemonBadRequestError")),
        ({"name": "x" * 128}, (400, -400, "PluginDaemonBadRequestError")),
        ({"settings": []}, (400, -400, "PluginDaemonBadRequestError")),
        (
            {"plugin_unique_identifier": HOOKED.replace("0.1.0", "0.1.1")},
            (200, -404, "PluginNotFoundError"),
        ),
    ],
)
def test_a_setup_that_does_not_fit_is_refused(
    door: World, changed: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    status, envelope = set_up(door, **changed)
    assert (status, *error_of(envelope)[:2]) == expected
    assert listed(door) == []


def test_a_plugin_without_the_permission_gets_no_endpoint(door: World) -> None:
    door.install(HOOKED.replace("hooked", "barred"), {"endpoint": DECLARATION["endpoint"]})
    status, envelope = set_up(door, plugin_unique_identifier=HOOKED.replace("hooked", "barred"))
    assert (status, *error_of(envelope)[:2]) == (200, -403, "PluginPermissionDeniedError")


def test_an_update_keeps_the_secret_behind_a_mask_and_replaces_another(
    door: World, dify: Dify
) -> None:
    set_up(door)
    endpoint_id = listed(door)[0]["id"]
    for given, stored in (("se********en", "secret-token"), ("new-secret", "new-secret")):
        status, envelope = change(
            door, "update", endpoint_id=endpoint_id, user_id="u2", name="other",
            settings={"token": given, "plain": "p"},
        )  # fmt: skip
        assert (status, envelope["code"]) == (200, 0)
        encrypted = [body for body in dify.asked if body["opt"] == "encrypt"][-1]
        assert encrypted["data"] == {"token": stored, "plain": "p"}
    [row] = listed(door)
    assert (row["name"], row["settings"]) == ("other", {"token": "ne******et", "plain": "p"})


def test_errata_dify_is_told_to_forget_without_being_told_the_settings(
    door: World, dify: Dify
) -> None:
    set_up(door)
    endpoint_id = listed(door)[0]["id"]
    change(door, "update", endpoint_id=endpoint_id, user_id="u", name="n", settings={"token": "x"})
    change(door, "remove", endpoint_id=endpoint_id)
    cleared = [body for body in dify.asked if body["opt"] == "clear"]
    assert [body["data"] for body in cleared] == [{}, {}]


def test_D_17_counters_follow_what_is_there(door: World) -> None:
    set_up(door)
    set_up(door)
    first, second = (row["id"] for row in listed(door))
    for _ in range(2):
        assert change(door, "disable", endpoint_id=first)[1]["data"] is True
        assert counters(door) == (2, 1)
    change(door, "remove", endpoint_id=first)
    assert counters(door) == (1, 1)
    change(door, "disable", endpoint_id=second)
    assert counters(door) == (1, 0)
    change(door, "enable", endpoint_id=second)
    assert counters(door) == (1, 1)


@pytest.mark.parametrize("deed", ["update", "remove", "enable", "disable"])
def test_D_19_an_unknown_endpoint_is_not_found(door: World, deed: str) -> None:
    for endpoint_id in ("x", "0198c5d2-0000-7000-8000-000000000000"):
        body = {"endpoint_id": endpoint_id, "user_id": "u", "name": "n", "settings": {}}
        status, envelope = change(door, deed, **body)
        assert (status, *error_of(envelope)[:2]) == (200, -404, "PluginDaemonNotFoundError")


@pytest.mark.parametrize("deed", ["update", "remove", "enable", "disable"])
def test_T_S11_another_tenants_endpoint_is_as_if_it_were_not_there(door: World, deed: str) -> None:
    set_up(door)
    [row] = listed(door)
    body = {"endpoint_id": row["id"], "user_id": "u", "name": "n", "settings": {"token": "x"}}
    status, text, _ = door.call("POST", f"/plugin/{OTHER_TENANT}/endpoint/{deed}", json_body=body)
    assert (status, *error_of(opened(json.loads(text)))[:2]) == (
        200, -404, "PluginDaemonNotFoundError"
    )  # fmt: skip
    assert listed(door) == [row]


def test_lists_of_one_plugin_and_of_another_tenant(door: World) -> None:
    set_up(door)
    assert len(listed(door, "endpoint/list/plugin", plugin_id="acme/hooked")) == 1
    assert listed(door, "endpoint/list/plugin", plugin_id="a/b") == []
    _, text, _ = door.call(
        "GET", f"/plugin/{OTHER_TENANT}/endpoint/list", query={"page": 1, "page_size": 1}
    )
    assert json.loads(text)["data"] == []


def test_a_page_of_endpoints_has_at_most_100(door: World) -> None:
    status, envelope = door.envelope("GET", "endpoint/list", query={"page": 1, "page_size": 101})
    assert status == 400
    assert "'PageSize' failed on the 'max' tag" in error_of(envelope)[2]


def test_what_databases_cannot_hold_never_reaches_them(door: World) -> None:
    far = {"page": "9" * 30, "page_size": 100}
    assert door.envelope("GET", "endpoint/list", query=far)[1]["data"] == []
    assert door.envelope("GET", "management/list", query=far)[1]["data"]["list"] == []
    named = {"page": 1, "page_size": 1, "plugin_id": "a\0b"}
    status, envelope = door.envelope("GET", "endpoint/list/plugin", query=named)
    assert status == 400
    assert "NUL" in error_of(envelope)[2]
    assert door.call("GET", "/e/a%00b/")[0] == 404


def test_D_13_secrets_that_cannot_be_read_do_not_fail_the_list(door: World, dify: Dify) -> None:
    set_up(door)
    dify.broken = True
    assert listed(door)[0]["settings"]["token"] == "******"
    dify.broken = False
    assert listed(door)[0]["settings"]["token"] == "se********en"


def test_the_stars_of_a_secret_that_could_not_be_read_do_not_replace_it(
    door: World, dify: Dify
) -> None:
    set_up(door)
    dify.broken = True
    row = listed(door)[0]
    dify.broken = False
    form = {"endpoint_id": row["id"], "user_id": "u1", "name": "renamed"}
    assert change(door, "update", **form, settings=row["settings"])[1]["data"] is True
    row = listed(door)[0]
    assert (row["name"], row["settings"]["token"]) == ("renamed", "se********en")


def test_the_masks_of_a_list_are_asked_for_once(door: World, dify: Dify) -> None:
    set_up(door)
    for _ in range(3):
        listed(door)
    assert dify.ops() == ["encrypt", "decrypt"]


def test_R24_a_list_is_answered_while_the_dify_that_asks_for_it_is_busy_asking(
    door: World, dify: Dify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each list of Dify's holds one of its greenlets until it has our answer; decrypting needs
    another one. With none left, masks are stars, and no list waits for ever."""
    monkeypatch.setattr("tidegate.doors.dify.endpoints._LIST_SECONDS", 0.5)
    for _ in range(3):
        set_up(door)
    dify.free.clear()
    try:
        with gevent.Timeout(15):
            lists = [gevent.spawn(listed, door) for _ in range(8)]
            gevent.joinall(lists, raise_error=True)
    finally:
        dify.free.set()
    assert {row["settings"]["token"] for one in lists for row in one.value} == {"******"}
    assert {row["settings"]["token"] for row in listed(door)} == {"se********en"}


# ------------------------------------------------------------------ webhooks


def test_the_plugin_gets_the_request_and_the_decrypted_settings(
    door: World, plugin: Scripted, dify: Dify
) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("ok", status=201, headers={"X-A": "1", "content-type": "text/x"})]
    status, body, headers = door.call(
        "POST", f"/e/{hook}/v1/chat", query={"b": 2, "a": 1}, body=b'{"x":1}',
        headers={"Host": "dify.example", "User-Agent": "curl/8", "Cookie": "k=v"}, key="k",
    )  # fmt: skip
    assert (status, body, headers["x-a"], headers["content-type"]) == (201, b"ok", "1", "text/x")
    line = door.host.line()
    assert (line["endpoint_id"], line["data"]["user_id"]) == (listed(door)[0]["id"], "")
    assert (line["data"]["type"], line["data"]["action"]) == ("endpoint", "invoke_endpoint")
    assert line["data"]["settings"] == {
        "token": "secret-token",
        "plain": "visible",
        "unknown": {"k": 1},
    }
    raw = bytes.fromhex(line["data"]["raw_http_request"]).decode()
    assert raw.startswith("POST /v1/chat?a=1&b=2 HTTP/1.1\r\nHost: dify.example\r\n")
    assert f"Dify-Hook-Url: http://dify.example/e/{hook}/v1/chat\r\n" in raw
    assert raw.endswith('\r\n\r\n{"x":1}')
    assert dify.asked[-1]["user_id"] == ""


def test_repeated_headers_reach_the_plugin_as_they_came(door: World, plugin: Scripted) -> None:
    plugin.chunks = [part("ok")]
    with socket.create_connection(door.address, timeout=10) as sock:
        lines = [
            f"GET /e/{hook_of(door)}/x HTTP/1.1", "Host: h", "Connection: close",
            "Set-Cookie: a=1, b=2", "Set-Cookie: c=3", "X-Multi: 2", "X-Multi: 1",
        ]  # fmt: skip
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        assert b" 200 " in sock.recv(65536)
    raw = bytes.fromhex(door.host.line()["data"]["raw_http_request"]).decode()
    assert "Set-Cookie: a=1, b=2\r\nSet-Cookie: c=3\r\nX-Multi: 2\r\nX-Multi: 1\r\n" in raw


@pytest.mark.parametrize("count", [2, 3, 10, 300])
def test_D_26_every_chunk_of_a_fast_plugin_arrives(
    door: World, plugin: Scripted, count: int
) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("0123456789", status=200)] + [part("0123456789")] * (count - 1)
    for _ in range(5):
        assert door.call("GET", f"/e/{hook}/x", key="")[1] == b"0123456789" * count


def test_D_26_a_slow_client_gets_everything(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    piece = b"x" * 65536
    plugin.chunks = [part(piece)] * 40
    with socket.create_connection(door.address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.sendall(f"GET /e/{hook}/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        gevent.sleep(0.2)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert len(answer.read()) == len(piece) * 40


def test_each_chunk_is_sent_as_it_comes(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("one"), part("two")]
    plugin.wait_after = 1
    connection = http.client.HTTPConnection(*door.address, timeout=10)
    connection.request("GET", f"/e/{hook}/x")
    answer = connection.getresponse()
    assert answer.read1(3) == b"one"
    plugin.let_go.set()
    assert answer.read() == b"two"
    connection.close()


def test_a_head_without_a_body_yet_is_sent(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("", headers={"Content-Type": "text/event-stream"}), part("data: x\n\n")]
    plugin.wait_after = 1
    connection = http.client.HTTPConnection(*door.address, timeout=10)
    connection.request("GET", f"/e/{hook}/x")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    plugin.let_go.set()
    assert answer.read() == b"data: x\n\n"
    connection.close()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([part("x")], (200, b"x")),
        ([part("x", status=0)], (200, b"x")),
        ([part(status=404), part("x")], (404, b"x")),
        ([part(status=204)], (204, b"")),
        ([part("x", status=204)], (204, b"")),
        ([part("x", status=299)], (299, b"x")),
        ([part("", status=302, headers={"Location": "http://x/"})], (302, b"")),
        ([], (200, b"")),
        ([part("a"), part(status=500), part("b", status=500)], (200, b"ab")),
    ],
)
def test_status_and_body(
    door: World, plugin: Scripted, chunks: list[Any], expected: tuple[int, bytes]
) -> None:
    hook = hook_of(door)
    plugin.chunks = chunks
    assert door.call("GET", f"/e/{hook}/x", key="")[:2] == expected


def test_D_27_a_later_chunk_without_a_result_is_ignored(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("a", status=200), {}, {"status": None, "result": None}, part("b")]
    assert door.call("GET", f"/e/{hook}/x", key="")[1] == b"ab"


@pytest.mark.parametrize(
    ("chunk", "status"),
    [
        (part("x", status=99), 502),
        (part("x", status=1000), 502),
        (part("x", status=70000), 500),
        ({"status": 200, "result": "zz"}, 500),
        (b"5", 500),
    ],
)
def test_an_answer_that_is_none_is_told_before_the_head(
    door: World, plugin: Scripted, chunk: Any, status: int
) -> None:
    hook = hook_of(door)
    plugin.chunks = [chunk]
    found, body, headers = door.call("GET", f"/e/{hook}/x", key="", headers={"Connection": "close"})
    assert (found, headers["content-type"]) == (status, "application/json; charset=utf-8")
    assert error_of(opened(json.loads(body)))[:2] == (-500, "PluginDaemonInternalServerError")


def test_the_plugins_error_before_the_head_is_500(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.error = b'{"error_type":"E","message":"m","args":{}}'
    status, body, _ = door.call("GET", f"/e/{hook}/x", key="", headers={"Connection": "close"})
    assert status == 500
    assert error_of(opened(json.loads(body)))[2] == {"error_type": "E", "message": "m", "args": {}}


@pytest.mark.parametrize("late", ["error", "hex", "short"])
def test_what_breaks_after_the_head_is_not_a_whole_answer(
    door: World, plugin: Scripted, late: str
) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("abc", status=200)]
    if late == "error":
        plugin.error = b'{"error_type":"E","message":"m","args":{}}'
    elif late == "hex":
        plugin.chunks.append({"result": "zz"})
    else:
        plugin.chunks = [part("abc", headers={"Content-Length": "10"})]
    with pytest.raises(http.client.IncompleteRead) as caught:
        door.call("GET", f"/e/{hook}/x", key="")
    assert caught.value.partial == b"abc" or late == "hex"


def test_errata_4_a_body_is_cut_at_the_length_that_the_plugin_gave(
    door: World, plugin: Scripted
) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("abc", headers={"content-length": "4"}), part("def")]
    status, body, headers = door.call("GET", f"/e/{hook}/x", key="")
    assert (status, body, headers["content-length"]) == (200, b"abcd", "4")
    assert "transfer-encoding" not in headers


def test_errata_headers_cannot_break_the_answer(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    given = {"X-N": "a\r\nX-Evil: 1", "bad name": "1", "Transfer-Encoding": "gzip"}
    plugin.chunks = [part("x", headers=given)]
    _, body, headers = door.call("GET", f"/e/{hook}/x", key="")
    assert (body, headers["x-n"]) == (b"x", "a  X-Evil: 1")
    assert "x-evil" not in headers
    assert headers["transfer-encoding"] == "chunked"


def test_head_is_answered_without_a_body(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("abc", status=200, headers={"Content-Length": "3"})]
    status, body, headers = door.call("HEAD", f"/e/{hook}/x", key="")
    assert (status, body, headers["content-length"]) == (200, b"", "3")
    assert bytes.fromhex(door.host.line()["data"]["raw_http_request"]).startswith(b"HEAD /x ")
    assert door.call("HEAD", "/e/aaaaaaaaaaaaaaaa/x", key="")[:2] == (404, b"")


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_methods_that_are_served(door: World, plugin: Scripted, method: str) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("x")]
    assert door.call(method, f"/e/{hook}/x", key="")[0] == 200


def test_patch_is_no_route(door: World) -> None:
    status, body, _ = door.call("PATCH", f"/e/{hook_of(door)}/x", key="")
    assert (status, json.loads(body)["code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 307)])
def test_a_hook_without_a_path_is_redirected(door: World, method: str, status: int) -> None:
    found, _, headers = door.call(method, "/e/abcd", key="")
    assert (found, headers["location"]) == (status, "/e/abcd/")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_D_25_a_body_over_the_limit_is_413_and_never_cut(
    tmp_path, dify: Dify, plugin: Scripted, framing: str
) -> None:
    environ = {"DIFY_INNER_API_URL": dify.url, "TIDEGATE_WEBHOOK_BODY": "1000"}
    with world(tmp_path, {"acme/hooked": plugin}, **environ) as door:
        door.install(HOOKED, DECLARATION)
        hook = hook_of(door)
        body = b"x" * 1001
        sent: Any = body if framing == "length" else iter([body])
        connection = http.client.HTTPConnection(*door.address, timeout=10)
        connection.request("POST", f"/e/{hook}/x", sent, encode_chunked=framing == "chunked")
        answer = connection.getresponse()
        envelope = opened(json.loads(answer.read()))
        connection.close()
        assert answer.status == 413
        assert answer.getheader("Transfer-Encoding") == "chunked"
        assert answer.getheader("Connection") == "close"
        assert error_of(envelope)[:2] == (-400, "PluginDaemonBadRequestError")
        assert not [call for call in door.host.calls if isinstance(call.head, PluginHead)]
        plugin.chunks = [part("ok")]
        assert door.call("POST", f"/e/{hook}/x", body=b"x" * 1000, key="")[1] == b"ok"


def test_a_client_of_http_1_0_gets_its_413_without_chunks(
    tmp_path, dify: Dify, plugin: Scripted
) -> None:
    environ = {"DIFY_INNER_API_URL": dify.url, "TIDEGATE_WEBHOOK_BODY": "10"}
    with world(tmp_path, {"acme/hooked": plugin}, **environ) as door:
        door.install(HOOKED, DECLARATION)
        with socket.create_connection(door.address, timeout=10) as sock:
            text = f"POST /e/{hook_of(door)}/x HTTP/1.0\r\nContent-Length: 11\r\n\r\n"
            sock.sendall(text.encode() + b"x" * 11)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"413" in head.splitlines()[0]
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["code"] == -400


def test_an_unknown_hook_and_a_disabled_endpoint(door: World) -> None:
    status, body, _ = door.call("GET", "/e/aaaaaaaaaaaaaaaa/x", key="")
    assert (status, *error_of(opened(json.loads(body)))) == (
        404, -400, "PluginDaemonBadRequestError", "endpoint not found",
    )  # fmt: skip
    hook = hook_of(door)
    change(door, "disable", endpoint_id=listed(door)[0]["id"])
    status, body, _ = door.call("GET", f"/e/{hook}/x", key="")
    assert (status, *error_of(opened(json.loads(body)))) == (
        404, -404, "PluginDaemonNotFoundError", "endpoint not found",
    )  # fmt: skip
    change(door, "remove", endpoint_id=listed(door)[0]["id"])
    status, body, _ = door.call("GET", f"/e/{hook}/x", key="")
    assert (status, error_of(opened(json.loads(body)))[0]) == (404, -400)


def test_D_11_hooks_go_with_the_installation(tmp_path, dify: Dify, plugin: Scripted) -> None:
    with world(tmp_path, {"acme/hooked": plugin}, DIFY_INNER_API_URL=dify.url) as door:
        row_id = door.install(HOOKED, DECLARATION)
        hook = hook_of(door)
        body = {"plugin_installation_id": row_id}
        door.envelope("POST", "management/uninstall", json_body=body)
        status, text, _ = door.call("GET", f"/e/{hook}/x", key="")
        assert (status, error_of(opened(json.loads(text)))[0]) == (404, -400)
        door.install(HOOKED, DECLARATION)
        assert door.call("GET", f"/e/{hook}/x", key="")[0] == 404


def test_secrets_that_cannot_be_decrypted_are_500(door: World, dify: Dify) -> None:
    hook = hook_of(door)
    dify.broken = True
    status, body, _ = door.call("GET", f"/e/{hook}/x", key="")
    assert (status, error_of(opened(json.loads(body)))[0]) == (500, -500)
    assert "secret-token" not in body.decode()


def test_D_29_the_time_limit_counts_from_the_start(tmp_path, dify: Dify, plugin: Scripted) -> None:
    environ = {"DIFY_INNER_API_URL": dify.url, "PLUGIN_MAX_EXECUTION_TIMEOUT": "1"}
    with world(tmp_path, {"acme/hooked": plugin}, **environ) as door:
        door.install(HOOKED, DECLARATION)
        hook = hook_of(door)
        plugin.wait_after = 0
        status, body, _ = door.call("GET", f"/e/{hook}/x", key="")
        assert status == 500
        assert "killed by timeout" in error_of(opened(json.loads(body)))[2]["message"]
        plugin.let_go.set()
        assert door.host.cancelled_event.wait(patience(1))


def test_a_client_that_leaves_ends_the_session(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("one"), part("two")]
    plugin.wait_after = 1
    connection = http.client.HTTPConnection(*door.address, timeout=10)
    connection.request("GET", f"/e/{hook}/x")
    answer = connection.getresponse()
    assert answer.read1(3) == b"one"
    answer.close()
    connection.close()
    assert door.host.cancelled_event.wait(patience(2))
    plugin.let_go.set()


def test_a_connection_is_kept_after_an_answer(door: World, plugin: Scripted) -> None:
    hook = hook_of(door)
    plugin.chunks = [part("x")]
    connection = http.client.HTTPConnection(*door.address, timeout=10)
    for _ in range(3):
        connection.request("POST", f"/e/{hook}/x", b"body")
        assert connection.getresponse().read() == b"x"
    connection.close()


def test_hooks_can_be_switched_off(tmp_path) -> None:
    with world(tmp_path, {}, PLUGIN_ENDPOINT_ENABLED="false") as door:
        status, body, _ = door.call("GET", "/e/aaaaaaaaaaaaaaaa/x", key="")
        assert (status, json.loads(body)["code"]) == (404, "not_found")
