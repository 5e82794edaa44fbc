"""What changes on the way to Dify: files of agents, labels of schemas, expiry of credentials."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import pytest

from tests.unit.doors.sources import Given
from tidegate.doors.dify.action import Reshaper
from tidegate.doors.dify.reshapers import (
    ExpiryMender,
    LabelMender,
    Reshaped,
)
from tidegate.doors.files import FILE_LIMIT, PART_LIMIT, BlobMerger
from tidegate.errors import CallFailed, MessageTooLarge, ProtocolError

TEXT = b'{"type":"text","message":{"text":"blob_chunk"},"meta":null}'


def part(
    content: bytes = b"", *, end: bool = False, file: str = "1", meta: Any = None, **more: Any
) -> bytes:
    message = {
        "id": file,
        "sequence": 0,
        "total_length": 6,
        "blob": base64.b64encode(content).decode(),
        "end": end,
        **more,
    }
    return json.dumps({"type": "blob_chunk", "message": message, "meta": meta}).encode()


def merged(*bodies: bytes) -> list[Any]:
    return [json.loads(chunk) for chunk in taken(BlobMerger(), *bodies)]


def taken(reshaper: Reshaper, *bodies: bytes) -> list[bytes]:
    reshaped = Reshaped(Given(*bodies), reshaper)
    chunks = []
    while found := reshaped.take():
        chunks += found
    return chunks


def test_parts_of_a_file_become_one_blob_with_the_last_ones_meta() -> None:
    assert merged(part(b"abc", meta={"n": 0}), part(b"def"), part(end=True, meta={"n": 2})) == [
        {"type": "blob", "message": {"blob": "YWJjZGVm"}, "meta": {"n": 2}}
    ]


def test_what_the_last_part_holds_belongs_to_the_file() -> None:
    assert merged(part(b"abc"), part(b"def", end=True))[0]["message"] == {"blob": "YWJjZGVm"}


def test_files_may_interleave_and_messages_pass_untouched_between() -> None:
    body = b"\n".join([part(b"a", file="x"), TEXT, part(b"b", file="y"), part(b"c", file="x")])
    chunks = taken(BlobMerger(), body, part(end=True, file="y"), part(end=True, file="x"))
    assert chunks[0] == TEXT
    assert [json.loads(one)["message"]["blob"] for one in chunks[1:]] == ["Yg==", "YWM="]


@pytest.mark.parametrize("announced", [-1, 1 << 60, 0])
def test_D_20_memory_follows_what_came_not_what_was_announced(announced: int) -> None:
    tracemalloc.start()
    try:
        assert len(merged(part(b"a", total_length=announced), part(end=True))) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_D_21_a_part_that_is_too_large_is_an_error_in_json_after_what_came_before() -> None:
    source = Given(TEXT + b"\n" + part(b"x" * (PART_LIMIT + 1)))
    reshaped = Reshaped(source, BlobMerger())
    assert reshaped.take() == [TEXT]
    assert reshaped.ready
    with pytest.raises(MessageTooLarge, match="single file chunk is too large") as caught:
        reshaped.take()
    assert json.loads(caught.value.as_json())["args"]["limit"] == PART_LIMIT
    assert source.closed


def test_a_file_that_is_too_large_ends_the_call() -> None:
    bodies = [part(b"x" * PART_LIMIT)] * (FILE_LIMIT // PART_LIMIT + 1)
    with pytest.raises(MessageTooLarge, match=r"^file is too large"):
        merged(*bodies)


def test_many_open_files_are_bounded_together() -> None:
    with pytest.raises(MessageTooLarge, match="too many are open: 65 files, at most 64"):
        merged(*[part(b"x", file=str(number)) for number in range(65)])


@pytest.mark.parametrize(
    "broken",
    [
        b'{"type":"blob_chunk","message":{"id":"1"}}',
        b'{"type":"blob_chunk","message":null}',
        part(blob="%%%"),
        part(blob="YQ"),
        part(id=5),
    ],
)
def test_a_part_that_cannot_be_read_is_not_skipped(broken: bytes) -> None:
    with pytest.raises(ProtocolError, match="part of a file"):
        merged(broken)


def test_an_end_inside_a_file_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="inside 1 of its files"):
        merged(part(b"abc"))


def test_D_24_nothing_is_lost_between_parts() -> None:
    bodies = [TEXT] * 500
    assert taken(BlobMerger(), *bodies) == bodies


def test_an_error_of_the_plugin_comes_through() -> None:
    reshaped = Reshaped(Given(TEXT, error=CallFailed("x")), BlobMerger())
    assert reshaped.take() == [TEXT]
    with pytest.raises(CallFailed, match="x"):
        reshaped.take()


# ------------------------------------------------------------------ menders


@pytest.mark.parametrize(
    ("schema", "label"),
    [
        ({"model": "m"}, {"en_US": "m"}),
        ({"model": "m", "label": None}, {"en_US": "m"}),
        ({"model": "m", "label": {"en_US": "", "zh_Hans": "z"}}, {"en_US": "m", "zh_Hans": "z"}),
        ({"model": ""}, {"en_US": "asked"}),
        ({}, {"en_US": "asked"}),
    ],
)
def test_errata_6_a_schema_without_a_label_gets_its_models_name(schema: Any, label: Any) -> None:
    chunk = json.dumps({"model_schema": {**schema, "n": 9007199254740993}}).encode()
    [found] = taken(LabelMender("asked"), chunk)
    assert json.loads(found)["model_schema"] == {**schema, "label": label, "n": 9007199254740993}


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"model_schema": {"label": {"en_US": "M"},"f":1.0}}',
        b'{"model_schema": null}',
        b"{}",
        b"5",
        b'{"model_schema": 5}',
        b'{"model_schema": {"label": 5}}',
    ],
)
def test_other_schemas_keep_their_bytes(chunk: bytes) -> None:
    assert taken(LabelMender("asked"), chunk) == [chunk]


def test_credentials_that_never_expire_say_minus_one() -> None:
    for given in (b'{"credentials":{"a":1.0},"expires_at":null}', b'{"credentials":{"a":1.0}}'):
        assert taken(ExpiryMender(), given) == [b'{"credentials":{"a":1.0},"expires_at":-1}']
    given = b'{"credentials": {}, "expires_at": 5}'
    assert taken(ExpiryMender(), given) == [given]


def test_a_file_with_an_endless_id_ends_the_call() -> None:
    """64 open files with ids of 30 MB would be two gigabytes, and none of it content."""
    assert merged(part(b"abc", file="x" * 1024, end=True))
    with pytest.raises(MessageTooLarge, match="the id of a file is too long: 1025"):
        merged(part(b"abc", file="x" * 1025, end=True))


@pytest.mark.parametrize("mender", [ExpiryMender(), LabelMender("m")], ids=["expiry", "label"])
def test_T_P1_what_is_far_too_long_is_not_made_objects_of(mender: Reshaper) -> None:
    keys = b",".join(b'"k%d":{}' % number for number in range(200_000))
    chunk = b'{"expires_at":null,"model_schema":{%b},%b}' % (keys, keys)
    tracemalloc.start()
    try:
        assert mender.chunk(chunk) is chunk
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
