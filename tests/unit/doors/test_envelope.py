"""Envelopes, byte for byte (spec/http/01 sections 1.1 and 1.2)."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tidegate.doors.envelope import NOT_FOUND, failure, success, success_bytes
from tidegate.errors import (
    BadRequest,
    DatabaseUnavailable,
    HostLost,
    NotFound,
    PackageRejected,
    PluginNotFound,
    RuntimeNotFound,
    TidegateError,
    TooManyRequests,
    Unauthorized,
)


def test_success_is_one_compact_object() -> None:
    assert success([]).body == b'{"code":0,"message":"success","data":[]}'
    assert success_bytes(b'{"a":1}').body == b'{"code":0,"message":"success","data":{"a":1}}'
    assert success(True).content_type == "application/json; charset=utf-8"


def test_times_are_rfc_3339_in_utc() -> None:
    answer = json.loads(success(datetime(2026, 8, 21, 8, 0, 0, 123456, UTC)).body)
    assert answer["data"] == "2026-08-21T08:00:00.123456Z"


def test_the_error_is_json_text_with_its_keys_in_order() -> None:
    assert failure(Unauthorized("unauthorized")).body == (
        b'{"code":-401,"message":"{\\"message\\":\\"unauthorized\\",\\"error_type\\":'
        b'\\"PluginDaemonUnauthorizedError\\",\\"args\\":null}","data":null}'
    )


def test_an_unknown_route_has_a_text_for_code() -> None:
    assert NOT_FOUND.status == 404
    assert NOT_FOUND.body == b'{"code":"not_found","message":"route not found"}'


@pytest.mark.parametrize(
    ("error", "status", "code", "error_type"),
    [
        (BadRequest("x"), 400, -400, "PluginDaemonBadRequestError"),
        (NotFound("x"), 404, -404, "PluginDaemonNotFoundError"),
        (PluginNotFound("x"), 404, -404, "PluginNotFoundError"),
        (RuntimeNotFound("x"), 404, -500, "PluginDaemonInternalServerError"),
        (PackageRejected("x"), 400, -400, "PluginDaemonBadRequestError"),
        (DatabaseUnavailable("x"), 500, -500, "PluginDaemonInternalServerError"),
        (HostLost("x"), 500, -500, "PluginDaemonInternalServerError"),
        (TidegateError("x"), 500, -500, "PluginDaemonInternalServerError"),
    ],
)
def test_each_error_has_its_status_and_code(
    error: TidegateError, status: int, code: int, error_type: str
) -> None:
    answer = failure(error)
    envelope = json.loads(answer.body)
    assert (answer.status, envelope["code"]) == (status, code)
    assert json.loads(envelope["message"])["error_type"] == error_type


def test_admission_says_when_to_come_back_with_a_code_that_dify_types() -> None:
    answer = failure(TooManyRequests("busy", retry_after=0.2))
    assert answer.status == 429
    assert answer.headers == (("Retry-After", "1"),)
    assert json.loads(answer.body)["code"] == -500


def test_a_management_route_may_answer_200() -> None:
    assert failure(NotFound("x"), status=200).status == 200
