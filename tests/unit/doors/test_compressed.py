"""Streamed answers as gzip: each piece at once, the trailer at the end, whatever the end is."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tidegate.doors.compressed import accepts_gzip, compressed
from tidegate.doors.routes import StreamResponse
from tidegate.errors import CallFailed


class Bodies:
    """A source that gives these, then ends or fails."""

    ready = True

    def __init__(self, *bodies: list[bytes], error: CallFailed | None = None) -> None:
        self.bodies = list(bodies)
        self.error = error

    def take(self) -> list[bytes]:
        if self.bodies:
            return self.bodies.pop(0)
        if self.error is not None:
            raise self.error
        return []

    def abort(self, error: CallFailed) -> None:
        self.error = error

    def close(self) -> None:
        self.bodies.clear()


def answer(source: Bodies) -> StreamResponse:
    return compressed(
        StreamResponse(
            source=source,
            events=lambda bodies: [body + b"\n\n" for body in bodies],
            error_event=lambda error: error.message.encode(),
            before_head=lambda error: None,
            finished=lambda outcome: None,
            seconds=1.0,
        )
    )


def test_each_piece_can_be_read_when_it_comes_and_the_whole_ends_with_its_sum():
    made = answer(Bodies([b"one", b"two"], [b"three"]))
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    whole, seen = b"", []
    while bodies := made.source.take():
        data = b"".join(made.events(bodies))
        whole += data
        seen.append(reader.decompress(data))
    assert seen == [b"one\n\ntwo\n\n", b"three\n\n", b""]
    assert reader.eof
    assert gzip.decompress(whole) == b"one\n\ntwo\n\nthree\n\n"


def test_an_answer_that_fails_ends_whole_with_its_error():
    made = answer(Bodies([b"one"], error=CallFailed("boom")))
    data = b"".join(made.events(made.source.take()))
    with pytest.raises(CallFailed) as failed:
        made.source.take()
    assert gzip.decompress(data + made.error_event(failed.value)) == b"one\n\nboom"


def test_an_empty_answer_is_an_empty_file():
    made = answer(Bodies())
    assert gzip.decompress(b"".join(made.events(made.source.take()))) == b""
    assert made.source.take() == []


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip, deflate, br", True),
        ("GZIP", True),
        ("br;q=1, gzip;q=0.2", True),
        ("*", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("identity", False),
        ("", False),
    ],
)
def test_a_client_says_whether_it_takes_gzip(header, taken):
    assert accepts_gzip(header) is taken
