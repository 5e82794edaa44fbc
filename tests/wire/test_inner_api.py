"""Dify's inner API without I/O: frames from any pieces, bodies with bytes untouched."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.inner_api import (
    FrameReader,
    InnerApiError,
    frame,
    reply_data,
    request_body,
    request_fields,
    text_field,
)

LIMIT = 1000


def test_a_frame_has_the_published_bytes() -> None:
    data = b'{"data":{"a":1},"error":""}'
    head = b"\x0f\x00\x0a\x00" + struct.pack("<I", len(data)) + bytes(6)
    assert frame(data) == head + data


@given(
    texts=st.lists(st.binary(max_size=60), max_size=6),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_come_whole_and_in_order_whatever_the_pieces(
    texts: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(map(frame, texts))
    reader = FrameReader(LIMIT)
    found: list[bytes] = []
    position = number = 0
    while position < len(stream):
        size = cuts[number % len(cuts)]
        found += reader.feed(stream[position : position + size])
        position += size
        number += 1
    reader.finish()
    assert found == texts


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b'{"data":null}' + bytes(20), "magic number mismatch: 123"),
        (b"\x0f\x00\x0b\x00" + bytes(20), "header length mismatch: 11"),
        (b"\x0f\x00\x0a\x00" + struct.pack("<I", LIMIT + 1) + bytes(6), "data length is too long"),
    ],
)
def test_what_is_no_frame_is_refused(stream: bytes, error: str) -> None:
    with pytest.raises(InnerApiError, match=error):
        list(FrameReader(LIMIT).feed(stream))


def test_frames_before_what_is_none_are_not_lost() -> None:
    feed = FrameReader(LIMIT).feed(frame(b"{}") + b"\x0e" + bytes(20))
    assert next(feed) == b"{}"
    with pytest.raises(InnerApiError, match="magic number mismatch: 14"):
        next(feed)


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    head = frame(b"x" * (LIMIT + 1))[:14]
    with pytest.raises(InnerApiError, match=str(LIMIT + 1)):
        list(FrameReader(LIMIT).feed(head))


def test_an_end_within_a_frame_is_told() -> None:
    reader = FrameReader(LIMIT)
    assert not list(reader.feed(frame(b"{}")[:-1]))
    with pytest.raises(InnerApiError, match="15 bytes into a frame"):
        reader.finish()


def test_data_of_an_answer_keeps_its_bytes_on_one_line() -> None:
    text = b'{"data": {"big": 9007199254740993,\n "odd": 1.0, "x": "\\u2028"}, "error": ""}'
    assert reply_data(text) == b'{"big": 9007199254740993,  "odd": 1.0, "x": "\\u2028"}'


def test_data_that_is_wrapped_twice_is_unwrapped() -> None:
    assert reply_data(b'{"data":{"data":{"a":1}},"error":""}', twice=True) == b'{"a":1}'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"data":null,"error":"no such model"}', "request failed: no such model"),
        (b'{"data":null,"error":""}', "data is nil"),
        (b'{"code":"not_found","message":"x"}', "data is nil"),
        (b'{"data":[1],"error":""}', "must be an object"),
        (b"<html>", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_an_answer_without_an_object_is_an_error(text: bytes, error: str) -> None:
    with pytest.raises(InnerApiError, match=error):
        reply_data(text)


def test_a_body_keeps_unknown_fields_and_big_integers_and_says_who_asks() -> None:
    fields = request_fields(
        b'{"tenant_id":"forged","user_id":"forged","type":"forged","new":{"n":12345678901234567890},'
        b'"opaque_body":[1.0,{"\\ud83d\\ude00":null}]}'
    )
    body = request_body(fields, tenant="t", user="", type="llm")
    assert b'"new":{"n":12345678901234567890}' in body
    assert b'"opaque_body":[1.0,{"\\ud83d\\ude00":null}]' in body
    found = json.loads(body)
    assert (found["tenant_id"], found["user_id"], found["type"]) == ("t", "", "llm")


@pytest.mark.parametrize("value", [b"null", b'""', None])
def test_a_required_field_that_is_missing_null_or_empty_is_named(value: bytes | None) -> None:
    request = b"{}" if value is None else b'{"model":' + value + b"}"
    with pytest.raises(InnerApiError, match="model"):
        request_fields(request, ("model",))


@pytest.mark.parametrize("value", [b"0", b"false", b"[]", b"{}", b'" "'])
def test_a_required_field_may_be_zero_or_empty_otherwise(value: bytes) -> None:
    assert request_fields(b'{"model":' + value + b"}", ("model",))


@pytest.mark.parametrize("value", [b'"zzz"', b"7", b"[]"])
def test_a_choice_that_is_none_is_told_with_those_that_are(value: bytes) -> None:
    with pytest.raises(InnerApiError, match="kind takes one of a, b"):
        request_fields(b'{"kind":' + value + b"}", choices={"kind": ("a", "b")})
    assert request_fields(b'{"kind":"b"}', choices={"kind": ("a", "b")})
    assert request_fields(b'{"kind":null}', choices={"kind": ("a", "b")})


@pytest.mark.parametrize("request_", [b"[]", b"null", b"{", b"1"])
def test_a_request_that_is_no_object_is_refused(request_: bytes) -> None:
    with pytest.raises(InnerApiError):
        request_fields(request_)


def test_a_text_field_is_empty_when_it_is_no_text() -> None:
    fields = request_fields(b'{"a":"x","b":1,"c":null}')
    assert [text_field(fields, name) for name in "abcd"] == ["x", "", "", ""]
