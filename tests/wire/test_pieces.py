"""Texts in pieces: the same bytes as in one, without a copy of the whole."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.frames import FRAME_LIMIT, FrameReader, Kind, encode
from tidegate.wire.heads import HostHead, decode_open, encode_open
from tidegate.wire.pieces import LONG, cut, size_of, whole
from tidegate.wire.session import long_line, request_line

LONG_TEXT = json.dumps({"text": "x" * (3 * LONG), "é": "ü"}, ensure_ascii=False).encode()


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_cutting_keeps_every_byte_and_the_length_of_each_group(pieces, limit):
    groups = list(cut(pieces, limit))
    assert b"".join(b"".join(group) for group in groups) == b"".join(pieces)
    assert all(size_of(tuple(group)) == limit for group in groups[:-1])


def test_a_long_request_line_is_the_same_in_pieces_and_its_data_is_not_copied():
    names = {"user_id": "u", "type": "tool", "action": "invoke_tool"}
    joined = request_line("s", data=LONG_TEXT, **names)
    pieces = request_line("s", data=long_line(memoryview(LONG_TEXT)), **names)
    assert whole(pieces) == joined
    assert json.loads(joined)["data"]["text"] == "x" * (3 * LONG)
    assert [piece.obj for piece in pieces if isinstance(piece, memoryview)] == [LONG_TEXT]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_newlines_of_a_long_text_go_wherever_they_are(newline):
    text = b'{"a":' + newline + b'"' + b"x" * (2 * LONG) + b'",' + newline + b'"b":1}'
    line = whole(long_line(memoryview(text)))
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == json.loads(text)


@pytest.mark.parametrize("size", [0, 10, FRAME_LIMIT, FRAME_LIMIT + 1, 3 * FRAME_LIMIT])
def test_frames_of_pieces_carry_the_same_message(size):
    text = b"p" * size
    body = encode_open(HostHead("op"), (memoryview(text)[:7], memoryview(text)[7:]))
    frames = FrameReader().feed(b"".join(encode(Kind.OPEN, 3, body)))
    head, payload = decode_open(tuple(body for _, _, _, body in frames))
    assert head == HostHead("op")
    assert whole(payload) == text


def test_a_chunk_that_is_a_view_of_its_line_is_cut_as_bytes_are():
    text = b'"' + b"c" * (2 * FRAME_LIMIT) + b'"'
    parts = encode(Kind.CHUNK, 1, msgspec.Raw(text))
    frames = FrameReader().feed(b"".join(parts))
    assert b"".join(body for _, _, _, body in frames) == text
