"""Lines of a plugin: any cut gives the same lines; a line over the limit costs itself only."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.lines import HEAD_KEPT, LineSplitter, OversizedLine, sift

LIMIT = 64


def feed_cut(data: bytes, sizes: list[int], limit: int = LIMIT):
    splitter = LineSplitter(limit)
    lines, start, index = [], 0, 0
    while start < len(data):
        size = sizes[index % len(sizes)] if sizes else len(data)
        lines += splitter.feed(data[start : start + size])
        start += size
        index += 1
    return splitter, lines


line = st.binary(max_size=LIMIT * 3).map(lambda raw: raw.replace(b"\n", b""))


@given(st.lists(line, max_size=12), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_T_P2_any_cut_gives_the_same_lines(lines, sizes):
    data = b"".join(item + b"\n" for item in lines)
    splitter, got = feed_cut(data, sizes)
    assert [None if isinstance(item, OversizedLine) else item for item in got] == [
        None if len(item) > LIMIT else item for item in lines
    ]
    assert splitter.partial == b""


@given(st.lists(st.sampled_from([b"", b"f", b"a word", b"word", b"ord"]), min_size=1, max_size=12))
def test_T_P4_a_flood_is_sifted_into_the_lines_with_a_word_and_the_others(lines):
    others = []
    found = sift(b"\n".join(lines), b"word", others.append)
    assert found == [one for one in lines if b"word" in one]
    left = [one for block in others for one in block.split(b"\n") if one]
    assert left == [one for one in lines if one and b"word" not in one]


def test_T_P2_byte_by_byte():
    splitter = LineSplitter(100)
    got = [out for byte in b"ab\n\ncd\nrest" for out in splitter.feed(bytes([byte]))]
    assert got == [b"ab", b"", b"cd"]
    assert splitter.partial == b"rest"


def test_T_P3_an_endless_line_is_told_at_the_limit_and_not_held():
    splitter = LineSplitter(1 << 16)
    piece = b"x" * (1 << 15)
    told = []
    for _ in range(3200):  # 100 MB
        told += splitter.feed(piece)
        assert len(splitter.partial) <= (1 << 16)
    (over,) = told
    assert over.size == 3 << 15
    assert len(over.head) == HEAD_KEPT
    assert splitter.feed(b"tail\nnext\n") == [b"next"]


def test_an_oversized_line_names_its_session():
    splitter = LineSplitter(200)
    over, rest = splitter.feed(
        b'{"event":"session", "session_id" : "s-1","data":' + b"y" * 300 + b"\nok\n"
    )
    assert over.session_id == "s-1"
    assert rest == b"ok"


def test_a_line_without_a_session_names_none():
    (over,) = LineSplitter(10).feed(b"z" * 50 + b"\n")
    assert over.session_id is None


def test_a_line_of_exactly_the_limit_passes():
    splitter = LineSplitter(10)
    assert splitter.feed(b"0123456789\n") == [b"0123456789"]
    (over,) = splitter.feed(b"01234567890\n")
    assert over.size == 11
