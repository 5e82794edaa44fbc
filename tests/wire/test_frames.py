"""Frames of the link: whatever way the bytes are cut, the same frames come out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.frames import (
    FRAME_LIMIT,
    FRAME_MAX,
    HEADER,
    HEADER_SIZE,
    MORE,
    FrameError,
    FrameReader,
    Kind,
    encode,
)

kinds = st.sampled_from(list(Kind))
messages = st.lists(
    st.tuples(kinds, st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=20
)


def read_cut(data: bytes, cuts: list[int]) -> list[tuple[int, int, int, bytes]]:
    reader = FrameReader()
    frames = []
    start = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        if data[start:cut]:
            frames += reader.feed(data[start:cut])
        start = cut
    assert reader.pending == 0
    return frames


@given(messages, st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_survive_any_cut(items, cuts):
    data = b"".join(b"".join(encode(*item)) for item in items)
    assert read_cut(data, cuts) == [(number, kind, 0, body) for kind, number, body in items]


def test_bytes_one_by_one():
    data = b"".join(encode(Kind.CHUNK, 7, b"abc") + encode(Kind.END, 7))
    reader = FrameReader()
    frames = [frame for byte in data for frame in reader.feed(bytes([byte]))]
    assert frames == [(7, Kind.CHUNK, 0, b"abc"), (7, Kind.END, 0, b"")]


def test_long_bodies_are_cut_with_more():
    body = bytes(range(256)) * (FRAME_LIMIT // 128)
    reader = FrameReader()
    frames = reader.feed(b"".join(encode(Kind.OPEN, 3, body)))
    assert [flags for _, _, flags, _ in frames] == [MORE] * (len(frames) - 1) + [0]
    assert all(len(piece) <= FRAME_LIMIT for *_, piece in frames)
    assert b"".join(piece for *_, piece in frames) == body


def test_a_body_of_exactly_the_limit_is_one_frame():
    frames = FrameReader().feed(b"".join(encode(Kind.CHUNK, 1, b"x" * FRAME_LIMIT)))
    assert [(flags, len(body)) for _, _, flags, body in frames] == [(0, FRAME_LIMIT)]


@pytest.mark.parametrize(
    "header",
    [(10, 1, 0, 0, 0), (10, 1, 7, 0, 0), (FRAME_MAX + 1, 1, 2, 0, 0), (2**32 - 1, 1, 2, 0, 0)],
)
def test_what_is_no_frame_is_refused(header):
    with pytest.raises(FrameError):
        FrameReader().feed(HEADER.pack(*header) + b"x" * 10)


def test_the_header_has_twelve_bytes():
    assert HEADER_SIZE == 12
    assert b"".join(encode(Kind.END, 0x01020304)) == bytes.fromhex("000000000403020103000000")
