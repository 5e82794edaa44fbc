"""Bodies of every route: too large is 413, half of one is 408, and uploads may be larger (D-40)."""

from __future__ import annotations

import http.client
import json
from typing import Any

import gevent
import pytest

from tests.integration import test_routes
from tests.integration.door_world import KEY, TENANT, World, error_of, opened
from tests.integration.test_routes import (
    BODY_LIMIT,
    CASES,
    FILE_LIMIT,
    HOOKED,
    PAGE,
    Case,
    assert_answer,
    multipart,
    names,
)
from tidegate.doors.dify.multipart import FORM_LIMIT
from tidegate.wire.heads import PluginHead

TOO_LARGE = (413, -400, "PluginDaemonBadRequestError")
TOO_SLOW = (408, -400, "PluginDaemonBadRequestError")

door: Any = test_routes.door


def place(case: Case) -> tuple[str, dict[str, str]]:
    """Path and content type of a case, for requests that do not get far."""
    path = case.pattern.replace("{tenant_id}", TENANT)
    for name, value in case.params.items():
        path = path.replace("{" + name + "}", value)
    kind = "multipart/form-data; boundary=edge" if case.form else "application/json"
    return path, {"Content-Type": kind, **case.headers}


@names(CASES)
def test_a_body_that_is_too_large_is_413(door: World, case: Case) -> None:
    path, headers = place(case)
    limit = FILE_LIMIT + FORM_LIMIT if case.form else BODY_LIMIT
    body = b'{"x":"' + b"x" * limit + b'"}'
    assert_answer(door.call(case.method, path, body=body, headers=headers)[:2], TOO_LARGE)


def test_half_a_body_is_408_on_every_route(door: World) -> None:
    """All at once: each takes as long as the limit."""
    asked = {case.route: gevent.spawn(half_asked, door, case) for case in CASES if case.reads}
    for route, answer in asked.items():
        status, body, closed = answer.get(timeout=30)
        assert closed == "close", route
        assert_answer((status, body), TOO_SLOW)


def half_asked(door: World, case: Case) -> tuple[int, bytes, str | None]:
    path, headers = place(case)
    half = b'--edge\r\nContent-Disposition: form-data; name="a"' if case.form else b'{"x":'
    return half_sent(door, case.method, path, headers, half)


def half_sent(
    door: World, method: str, path: str, headers: dict[str, str], half: bytes
) -> tuple[int, bytes, str | None]:
    """Status, body and Connection of the answer to half a body."""
    sent = {**headers, "Content-Length": str(len(half) * 2), "X-Api-Key": KEY}
    connection = http.client.HTTPConnection(*door.address, timeout=20)
    connection.request(method, path, half, sent)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.getheader("Connection")


@pytest.mark.parametrize("kind", ["dify_pkg", "dify_bundle"])
def test_an_upload_may_be_larger_than_other_bodies(door: World, kind: str) -> None:
    path = "package" if kind == "dify_pkg" else "bundle"
    size = (BODY_LIMIT + FILE_LIMIT) // 2
    for more, words in ((size, "no end record"), (FILE_LIMIT + 1, f"larger than {FILE_LIMIT}")):
        form = multipart({kind: b"x" * more})
        status, body, _ = door.call(
            "POST", f"/plugin/{TENANT}/management/install/upload/{path}", **form
        )
        error = error_of(opened(json.loads(body)))
        assert (status, error[0]) == (200, -400)
        assert words in body.decode()


INVOKE = "dispatch/tool/invoke"


def hook_of(door: World) -> str:
    sent = {"plugin_unique_identifier": HOOKED, "user_id": "u", "name": "n", "settings": {}}
    door.envelope("POST", "endpoint/setup", json_body=sent)
    _, envelope = door.envelope("GET", "endpoint/list", query=PAGE)
    return str(envelope["data"][0]["hook_id"])


@pytest.mark.parametrize("prefix", [f"/plugin/{TENANT}/", "/v2/invoke/"])
def test_calls_of_plugins_have_the_same_limits(door: World, prefix: str) -> None:
    headers = {
        "Content-Type": "application/json",
        "X-Plugin-ID": "acme/tools",
        "X-Plugin-Unique-Identifier": "acme/tools:0.1.0@" + "8f" * 32,
    }
    large = b'{"data":{"x":"' + b"x" * BODY_LIMIT + b'"}}'
    answer = door.call("POST", prefix + INVOKE, body=large, headers=headers)
    assert_answer(answer[:2], TOO_LARGE)
    status, body, closed = half_sent(door, "POST", prefix + INVOKE, headers, b'{"data":')
    assert closed == "close"
    assert_answer((status, body), TOO_SLOW)


def test_half_a_webhook_is_408_and_reaches_no_plugin(door: World) -> None:
    path = f"/e/{hook_of(door)}/x"
    status, body, closed = half_sent(door, "POST", path, {}, b"half")
    assert closed == "close"
    assert_answer((status, body), TOO_SLOW)
    assert not [call for call in door.host.calls if isinstance(call.head, PluginHead)]


def test_a_body_whose_length_is_not_told_is_bounded_as_well(door: World) -> None:
    pieces = iter([b" " * 65536] * (BODY_LIMIT // 65536 + 1))
    connection = http.client.HTTPConnection(*door.address, timeout=20)
    path = f"/plugin/{TENANT}/management/install/identifiers"
    headers = {"Content-Type": "application/json", "X-Api-Key": KEY}
    connection.request("POST", path, pieces, headers, encode_chunked=True)
    answer = connection.getresponse()
    assert_answer((answer.status, answer.read()), TOO_LARGE)
    connection.close()
