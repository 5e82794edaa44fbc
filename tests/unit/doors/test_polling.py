"""The two routes that answer with one envelope."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.doors.sources import Given
from tidegate.calls import PluginFailed
from tidegate.doors.dify.polling import NO_RESULT, polled
from tidegate.doors.routes import StreamResponse
from tidegate.errors import CallFailed, DeadlineExceeded, Overloaded

RUNNING = b'{"status":"running","plugin_state":{"a":9007199254740993},"next_check_after_seconds":5}'


def asked(*bodies: bytes, error: CallFailed | None = None) -> StreamResponse:
    stream = StreamResponse(
        Given(*bodies, error=error), list, lambda error: b"", lambda error: None, print, 30
    )
    return polled(stream)


def answer(*bodies: bytes, error: CallFailed | None = None) -> tuple[int, Any, dict[str, str]]:
    """As api does it: what was taken, or the plain answer."""
    stream = asked(*bodies, error=error)
    assert stream.head is not None
    try:
        [body] = stream.events(stream.source.take())
    except CallFailed as failed:
        plain = stream.before_head(failed)
        assert plain is not None
        return plain.status, json.loads(plain.body), {}
    assert stream.source.ready
    assert stream.source.take() == []
    head = stream.head()
    assert head.length == len(body)
    return head.status, json.loads(body), dict(head.headers)


def failure(*bodies: bytes, error: CallFailed | None = None) -> Any:
    status, envelope, _ = answer(*bodies, error=error)
    assert (status, envelope["code"], envelope["data"]) == (500, -500, None)
    outer = json.loads(envelope["message"])
    assert outer["error_type"] == "PluginInvokeError"
    return outer["message"]


def test_a_result_is_the_plugins_bytes_in_an_envelope() -> None:
    stream = asked(RUNNING)
    assert stream.source.take() == [b'{"code":0,"message":"success","data":' + RUNNING + b"}"]
    assert answer(RUNNING)[2] == {"Content-Type": "application/json; charset=utf-8"}


def test_of_several_chunks_the_last_one_counts() -> None:
    status, envelope, _ = answer(RUNNING, b'{"status":"failed","error":"x"}')
    assert (status, envelope["data"]) == (200, {"status": "failed", "error": "x"})


def test_closing_and_aborting_reach_the_call() -> None:
    given = Given(RUNNING)
    stream = polled(StreamResponse(given, list, None, lambda error: None, lambda outcome: None, 30))
    stream.source.abort(CallFailed("stop"))
    assert given.error is not None
    stream.source.close()
    assert given.closed


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"status":"running"}',
        b'{"status":"running","plugin_state":{}}',
        b'{"status":"succeeded","result":null}',
        b'{"status":"failed","error":" "}',
        b'{"status":"other"}',
        b"{}",
        b"null",
    ],
)
def test_a_result_that_dify_cannot_use_is_an_error(chunk: bytes) -> None:
    message = json.loads(failure(chunk))
    assert message["error_type"] == "ProtocolError"
    assert message["message"].startswith("unmarshal json failed: ")


def test_no_result_is_told_in_the_words_of_the_reference() -> None:
    assert failure() == NO_RESULT


def test_the_plugins_error_passes_untouched() -> None:
    raw = b'{"error_type":"E","message":"m","args":{"n":9007199254740993}}'
    assert failure(error=PluginFailed(raw, "E", "m")) == raw.decode()


def test_D_05_polling_ends_at_its_time_limit() -> None:
    error = DeadlineExceeded("killed by timeout", seconds=600, owner="X")
    assert json.loads(failure(RUNNING, error=error))["error_type"] == "DeadlineExceeded"


def test_admission_is_told_as_everywhere() -> None:
    status, envelope, _ = answer(error=Overloaded("busy", retry_after=3))
    assert (status, envelope["code"]) == (429, -500)
