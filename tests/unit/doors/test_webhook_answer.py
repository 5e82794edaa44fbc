"""What a plugin may put into the head of a webhook's answer, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate.doors.dify.webhook_answer import HookAnswer
from tidegate.errors import ProtocolError


def answered(*chunks: dict[str, Any], method: str = "GET") -> HookAnswer:
    answer = HookAnswer(method, "acme/x")
    for chunk in chunks:
        answer.chunk(json.dumps(chunk).encode())
    return answer


def test_headers_that_come_without_end_end_the_call() -> None:
    """A plugin that sends headers and never a result filled the memory of the api."""
    chunk = {"headers": {f"h{n}": "v" for n in range(100)}}
    assert answered(*[chunk] * 10, {"result": "00"}).head().headers
    with pytest.raises(ProtocolError, match="1000 headers or 262144 bytes"):
        answered(*[chunk] * 11)


def test_headers_of_many_bytes_end_the_call() -> None:
    with pytest.raises(ProtocolError, match="1000 headers or 262144 bytes"):
        answered({"headers": {"a": "x" * (256 << 10)}, "result": "00"})
    assert answered({"headers": {"a": "x" * 1000}, "result": "00"}).head().headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("length", ["9" * 5000, "\u0663", "\u00b2", "-1", "1e3", ""])
def test_a_length_that_is_none_is_left_out(method: str, length: str) -> None:
    answer = answered({"headers": {"Content-Length": length}, "result": "00"}, method=method)
    answer.finish()
    assert answer.head().length is None


def test_a_length_that_can_be_read_is_kept() -> None:
    assert answered({"headers": {"Content-Length": "3"}, "result": "000000"}).head().length == 3
