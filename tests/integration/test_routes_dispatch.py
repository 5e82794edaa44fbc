"""Every dispatch route under both prefixes, asked wrongly: statuses of spec/http/01 section 4.2.

Right requests, missing fields and foreign tenants of each action are in test_actions.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration import test_routes
from tests.integration.door_world import TENANT, World, error_of, opened
from tests.integration.test_routes import ABSENT, BODY_LIMIT
from tidegate.doors.routes import Route

door: Any = test_routes.door


def dispatched(door: World) -> list[Route]:
    """The rows of both prefixes."""
    rows = [row for row in door.application.table.routes if "/dispatch/" in row.pattern]
    assert len(rows) >= 70
    return rows


def refusal(door: World, row: Route, **changed: Any) -> tuple[int, int, str]:
    """(status, code, error_type) of a request to that row."""
    headers = {
        "Content-Type": "application/json",
        "X-Plugin-ID": "a/b",
        "X-Plugin-Unique-Identifier": ABSENT,
    }
    sent = {"body": b'{"data":{},"tenant_id":"%b"}' % TENANT.encode(), "headers": headers}
    path = row.pattern.replace("{tenant_id}", TENANT)
    status, body, _ = door.call("POST", path, **{**sent, **changed})
    code, error_type = error_of(opened(json.loads(body)))[:2]
    return status, code, error_type


def test_a_wrong_key_opens_no_dispatch_route(door: World) -> None:
    for row in dispatched(door):
        status, code, error_type = refusal(door, row, key="wrong")
        assert status in (401, 429), row.pattern  # who guesses again and again has to wait
        assert (code, error_type) == (-401, "PluginDaemonUnauthorizedError")


def test_an_absent_plugin_is_404_on_every_dispatch_route(door: World) -> None:
    expected = {
        "/plugin": (404, -404, "PluginNotFoundError"),
        "/v2/inv": (404, -500, "PluginDaemonInternalServerError"),
    }
    for row in dispatched(door):
        assert refusal(door, row) == expected[row.pattern[:7]], row.pattern


def test_a_body_that_is_too_large_is_413_on_every_dispatch_route(door: World) -> None:
    for row in dispatched(door):
        large = b'{"data":"' + b"x" * BODY_LIMIT + b'"}'
        expected = (413, -400, "PluginDaemonBadRequestError")
        assert refusal(door, row, body=large) == expected, row.pattern


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data":null}', b"[]", b'{"data"'])
def test_a_body_without_data_is_400_on_every_dispatch_route(door: World, body: bytes) -> None:
    known = {
        "Content-Type": "application/json",
        "X-Plugin-ID": "acme/tools",
        "X-Plugin-Unique-Identifier": "acme/tools:0.1.0@" + "8f" * 32,
    }
    for row in dispatched(door):
        told = refusal(door, row, body=body, headers=known)
        assert told == (400, -400, "PluginDaemonBadRequestError"), row.pattern
