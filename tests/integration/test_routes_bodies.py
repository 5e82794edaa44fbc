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
    Case,
    assert_answer,
    multipart,
    names,
)
from tidegate.doors.dify.multipart import FORM_LIMIT

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
    headers |= {"Content-Length": str(len(half) * 2), "X-Api-Key": KEY}
    connection = http.client.HTTPConnection(*door.address, timeout=20)
    connection.request(case.method, path, half, headers)
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
