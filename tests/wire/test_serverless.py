"""Serverless over HTTP as values: sessions, failures, transactions, the connector's words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tidegate.errors import BadRequest, ConnectorFailed
from tidegate.ids import PluginIdentifier
from tidegate.wire.connector import Function, Launch, package_name, read_instances
from tidegate.wire.serverless import (
    Transaction,
    answer_event,
    invoke_url,
    is_signed,
    line_failure,
    read_transaction,
    response_failure,
    sign_session,
    with_session,
)
from tidegate.wire.session import request_line

KEY = b"key of the roles"
SESSION = "5b0d6f3e-0000-4000-8000-000000000000"


# --------------------------------------------------------------------------- sessions


def test_a_signed_session_is_known_again():
    assert is_signed(KEY, sign_session(KEY, SESSION))


@given(some.text(max_size=80))
def test_D_31_nothing_else_is(text):
    assert not is_signed(KEY, text)


@pytest.mark.parametrize(
    "change", [lambda one: one[:-1], lambda one: one + "0", lambda one: "6" + one[1:], str.upper]
)
def test_a_changed_one_is_not(change):
    assert not is_signed(KEY, change(sign_session(KEY, SESSION)))


def test_another_key_signs_otherwise():
    assert not is_signed(b"another", sign_session(KEY, SESSION))


def test_a_line_gets_the_signed_session_and_is_otherwise_as_it_was():
    line = request_line(SESSION, user_id="u", type="tool", action="invoke_tool", data=b'{"a":1}')
    assert isinstance(line, bytes)
    signed = with_session(line, SESSION, "signed")
    assert json.loads(signed) == {**json.loads(line), "session_id": "signed"}
    with pytest.raises(ValueError, match="session id"):
        with_session(b'{"event":"request"}', SESSION, "signed")


# --------------------------------------------------------------------------- functions


@pytest.mark.parametrize(
    ("function", "url"),
    [
        ("http://f:8080", "http://f:8080/invoke?action=invoke_tool"),
        ("http://f:8080/", "http://f:8080/invoke?action=invoke_tool"),
        ("https://f/base/", "https://f/base/invoke?action=invoke_tool"),
        ("https://f/base?code=x%3D", "https://f/base/invoke?code=x%3D&action=invoke_tool"),
    ],
)
def test_a_function_is_called_below_its_url_whose_query_stays(function, url):
    assert invoke_url(function, "invoke_tool") == url


def test_an_ordinary_answer_is_no_failure():
    assert response_failure(200, "OK", {"content-type": "text/html"}, b"") is None


@pytest.mark.parametrize(
    ("status", "headers", "body", "text", "request_id"),
    [
        (500, {}, b"", "500 Oops", None),
        (500, {}, b"\xff[", "500 Oops", None),
        (500, {"x-amzn-errortype": "Kind"}, b"{}", "Kind", None),
        (500, {}, b'{"errorType":"K","errorMessage":"why","requestId":"r"}', "K: why", "r"),
        (200, {"x-amzn-errortype": "Unhandled", "x-amzn-requestid": "q"}, b"", "Unhandled", "q"),
    ],
)
def test_an_error_of_the_platform_is_told_in_its_words(status, headers, body, text, request_id):
    failure = response_failure(status, "Oops", headers, body)
    assert failure.message == f"Plugin runtime request failed: {text}"
    assert failure.details["status_code"] == status
    assert failure.details.get("request_id") == request_id


def test_a_line_may_be_the_platforms_error():
    failure = line_failure(b'{"errorType":"Runtime.ExitError","errorMessage":"gone"}', 200)
    assert failure.message.endswith("Runtime.ExitError: gone")
    assert line_failure(b'{"event":"session"}', 200) is None
    assert line_failure(b"garbage", 200) is None


# --------------------------------------------------------------------------- transactions


def transaction(**changes: object) -> bytes:
    invoke = {"type": "storage", "backwards_request_id": "r", "request": {}}
    message = {"type": "invoke", "data": invoke}
    body = {"event": "session", "session_id": "s", "data": message, **changes}
    return json.dumps(body).encode() + b"\n\n"


def test_a_back_call_is_read_and_its_refusal_is_what_the_sdk_reads():
    read = read_transaction(transaction())
    assert (read.session, read.request_id) == ("s", "r")
    first, second, rest = read.refusal("no", {"error_type": "X"}).split(b"\n\n")
    assert rest == b""
    told = json.loads(first)["data"]
    assert (told["event"], told["message"], told["backwards_request_id"]) == ("error", "no", "r")
    assert (told["data"], told["error_type"]) == (None, "X")
    assert json.loads(second)["data"]["event"] == "end"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"\xff", b"{}", b"[" * 5000,
        transaction(event="heartbeat"), transaction(session_id=None), transaction(session_id=""),
        transaction(data={"type": "end", "data": {}}), transaction(data={}), transaction(data=7),
    ],
)  # fmt: skip
def test_D_23_anything_else_is_a_bad_request(body):
    with pytest.raises(BadRequest):
        read_transaction(body)


def test_a_refusal_needs_no_readable_back_call():
    assert Transaction("s", b"garbage").request_id == ""
    assert answer_event(b"{}") == b"{}\n\n"


def test_an_answer_stays_one_line_for_a_client_that_splits_at_more_than_newlines():
    said = {"data": "a\x85b\u2028c\u2029d"}
    event = answer_event(json.dumps(said, ensure_ascii=False).encode())
    (line,) = event.decode().rstrip().splitlines()  # as httpx does
    assert json.loads(line) == said


# --------------------------------------------------------------------------- connector


def test_a_version_has_a_name_at_the_connector():
    identifier = PluginIdentifier.parse("acme/weather:0.0.1@" + "ab" * 32)
    assert package_name(identifier) == "acme@weather@0.0.1@" + "ab" * 32 + ".difypkg"


@pytest.mark.parametrize("items", ["Items", "items"])
def test_the_first_instance_counts_however_keys_are_written(items):
    body = {"error": "", items: [{"ID": "1", "Name": "n", "Endpoint": "http://f"}, {"Name": "m"}]}
    assert read_instances(json.dumps(body).encode()) == Function("http://f", "n")


@pytest.mark.parametrize("body", [b"{}", b'{"items":[]}', b'{"items":null}', b'{"items":[7]}'])
def test_no_instance_is_none(body):
    assert read_instances(body) is None


@pytest.mark.parametrize("body", [b"", b"oops", b"[]", b'{"error":"broken"}'])
def test_an_answer_that_is_an_error_says_so(body):
    with pytest.raises(ConnectorFailed):
        read_instances(body)


def stage(stage: str, state: str, message: str = "") -> bytes:
    told = {"Stage": stage, "State": state, "Obj": "", "Message": message}
    return b"data: " + json.dumps(told).encode() + b"\n"


def test_a_launch_tells_its_steps_and_its_function():
    launch = Launch()
    url = "https://f/x?a=b,c=d"
    lines = [
        b"\n", b"event: x\n", b"noise\n", stage("healthz", "success"), stage("start", "running"),
        stage("build", "running"), stage("run", "running"),
        stage("run", "success", f"endpoint={url},name=fn-1,id=7"), stage("end", "success"),
    ]  # fmt: skip
    told = [step for line in lines if (step := launch.take(line))]
    assert [step for step, _ in told] == ["environment", "environment", "start", "start", "ready"]
    assert launch.function == Function(url, "fn-1")
    assert launch.done


def test_a_launch_that_failed_is_over_with_its_reason():
    with pytest.raises(ConnectorFailed, match="no room"):
        Launch().take(stage("build", "failed", "no room"))
