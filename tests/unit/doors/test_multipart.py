"""multipart/form-data: parts, limits, and every way to cut the body into pieces."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.doors.dify.multipart import (
    FIELD_LIMIT,
    HEAD_LIMIT,
    PART_LIMIT,
    MultipartReader,
    boundary_of,
)
from tidegate.errors import BadRequest

BOUNDARY = b"a1b2"


def body(*parts: tuple[str, bytes], boundary: bytes = BOUNDARY, end: bytes = b"--\r\n") -> bytes:
    """A body as httpx writes it."""
    pieces = []
    for name, content in parts:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        pieces.append(b"--" + boundary + b"\r\n" + head.encode() + content + b"\r\n")
    return b"".join(pieces) + b"--" + boundary + end


def parse(data: bytes, size: int = 1 << 20, **limits: int) -> dict[str, bytes]:
    reader = MultipartReader(BOUNDARY, limits)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    return reader.finish()


def test_the_parts_come_back_by_name() -> None:
    data = body(("verify_signature", b"false"), ("dify_pkg", b"PK\x03\x04\r\n--a1b\r\n\x00"))
    assert parse(data) == {
        "verify_signature": b"false",
        "dify_pkg": b"PK\x03\x04\r\n--a1b\r\n\x00",
    }


@given(
    content=st.binary(max_size=200).filter(lambda data: b"\r\n--a1b2" not in data),
    size=st.integers(1, 50),
)
def test_any_cut_of_any_content_gives_the_same_parts(content: bytes, size: int) -> None:
    data = body(("first", content), ("second", b"x"))
    assert parse(data, size) == {"first": content, "second": b"x"}


@given(data=st.binary(max_size=300), size=st.integers(1, 40))
def test_garbage_is_refused_and_nothing_else_is_raised(data: bytes, size: int) -> None:
    with pytest.raises(BadRequest):
        parse(data, size)


def test_a_preamble_and_an_epilogue_are_passed_over() -> None:
    assert parse(b"hello\r\n" + body(("a", b"1")) + b"goodbye" * 1000) == {"a": b"1"}


def test_an_empty_form_has_no_parts() -> None:
    assert parse(b"--a1b2--\r\n") == {}


def test_the_first_of_two_parts_with_one_name_counts() -> None:
    assert parse(body(("a", b"1"), ("a", b"2"))) == {"a": b"1"}


def test_a_part_at_its_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert len(parse(body(("big", b"x" * 1000)), 64, big=1000)["big"]) == 1000
    with pytest.raises(BadRequest, match="big is larger than 1000 bytes"):
        parse(body(("big", b"x" * 1001)), 64, big=1000)


def test_a_large_file_is_held_once() -> None:
    size = 16 << 20
    reader = MultipartReader(b"edge", {"file": size})
    head = b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    piece = b"x" * (1 << 18)
    tracemalloc.start()
    try:
        reader.feed(head)
        for _ in range(size // len(piece)):
            reader.feed(piece)
        reader.feed(b"\r\n--edge--\r\n")
        [content] = reader.finish().values()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(content) == size
    assert peak < 1.5 * size


def test_the_limit_holds_while_the_body_still_comes() -> None:
    reader = MultipartReader(BOUNDARY, {"big": 1000})
    reader.feed(body(("big", b""), end=b"")[: -len(b"\r\n--a1b2")])
    for _ in range(10):
        reader.feed(b"x" * 100)
    with pytest.raises(BadRequest, match="larger than"):
        reader.feed(b"x" * 100)


def test_a_part_that_nobody_asked_for_is_bounded_too() -> None:
    with pytest.raises(BadRequest, match="larger than"):
        parse(body(("other", b"x" * (FIELD_LIMIT + 1))))


def test_more_parts_than_any_form_has_are_refused() -> None:
    with pytest.raises(BadRequest, match=f"more than {PART_LIMIT} parts"):
        parse(body(*[(f"p{index}", b"") for index in range(PART_LIMIT + 1)]))


@pytest.mark.parametrize(
    "data",
    [
        b"--a1b2\r\n" + b"X: y\r\n" * (HEAD_LIMIT // 6 + 1) + b"\r\n",
        b"--a1b2\r\nContent-Type: text/plain\r\n\r\nx\r\n--a1b2--\r\n",
        b"--a1b2garbage\r\n\r\nx\r\n--a1b2--\r\n",
        b"x" * (HEAD_LIMIT + 1),
        body(("a", b"1"), end=b""),
        body(("a", b"1"))[:-6],
        b"",
    ],
)
def test_what_is_no_form_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(data)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b"', b"a b"),
        ("Multipart/Form-Data;BOUNDARY=x", b"x"),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=a"],
)
def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(BadRequest, match="multipart/form-data"):
        boundary_of(content_type)
