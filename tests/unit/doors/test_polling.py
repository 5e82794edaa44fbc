"""The two routes that answer with one envelope."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.doors.sources import Given
from tidegate.calls import PluginFailed
from tidegate.doors.dify.polling import NO_RESULT, polled
from tidegate.doors.routes import Outcome
from tidegate.errors import CallFailed, DeadlineExceeded

RUNNING = b'{"status":"running","plugin_state":{"a":9007199254740993},"next_check_after_seconds":5}'


def answer(*bodies: bytes, error: CallFailed | None = None) -> tuple[int, Any, Outcome]:
    outcomes: list[Outcome] = []
    source = Given(*bodies, error=error)
    response = polled(source, outcomes.append)
    assert source.closed
    [outcome] = outcomes
    return response.status, json.loads(response.body), outcome


def failure(*bodies: bytes, error: CallFailed | None = None) -> Any:
    status, envelope, _ = answer(*bodies, error=error)
    assert (status, envelope["code"], envelope["data"]) == (500, -500, None)
    outer = json.loads(envelope["message"])
    assert outer["error_type"] == "PluginInvokeError"
    return outer["message"]


def test_a_result_is_the_plugins_bytes_in_an_envelope() -> None:
    outcomes: list[Outcome] = []
    response = polled(Given(RUNNING), outcomes.append)
    assert response.body == b'{"code":0,"message":"success","data":' + RUNNING + b"}"
    assert response.content_type == "application/json; charset=utf-8"


def test_of_several_chunks_the_last_one_counts() -> None:
    status, envelope, outcome = answer(RUNNING, b'{"status":"failed","error":"x"}')
    assert (status, outcome) == (200, Outcome.SUCCESS)
    assert envelope["data"] == {"status": "failed", "error": "x"}


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
    status, envelope, outcome = answer(RUNNING, error=error)
    assert (status, outcome) == (500, Outcome.TIMEOUT)
    assert "killed by timeout" in envelope["message"]
