"""Server-sent events: byte for byte what Dify's client reads."""

import json

import pytest

from tidegate.wire import sse


def text(pieces):
    return b"".join(pieces)


def test_one_chunk_is_one_event():
    assert text(sse.events([b'{"a":1}'])) == (
        b'data: {"code":0,"message":"success","data":{"a":1}}\n\n'
    )


def test_bodies_and_joined_chunks_become_events_in_order():
    out = text(sse.events([b'{"n":1}\n{"n":2}', b'{"n":3}']))
    events = [json.loads(part.removeprefix(b"data: ")) for part in out.split(b"\n\n") if part]
    assert [event["data"]["n"] for event in events] == [1, 2, 3]


def test_a_large_chunk_is_not_copied_into_one_piece():
    body = b'{"t":"' + b"x" * sse.JOIN_BELOW + b'"}'
    pieces = sse.events([body])
    assert body in pieces
    assert text(pieces).endswith(b'"}}\n\n')


@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029"])
def test_characters_that_split_lines_are_escaped(character):
    body = json.dumps({"t": f"a{character}b"}, ensure_ascii=False).encode()
    out = text(sse.events([body])).decode()
    assert len(out.rstrip("\n").splitlines()) == 1
    assert json.loads(out.strip().removeprefix("data: "))["data"] == {"t": f"a{character}b"}


def test_other_text_beyond_ascii_stays_as_it_is():
    body = json.dumps({"t": "東京 🗼 é"}, ensure_ascii=False).encode()
    assert body in text(sse.events([body]))


def test_numbers_and_key_order_pass_through_D_22():
    body = b'{"z":9007199254740993,"a":1.0,"b":"0E-7"}'
    assert body in text(sse.events([body]))


def test_an_error_event_carries_json_text_in_json_text():
    inner = b'{"args":{"description":"x"},"error_type":"InvokeRateLimitError","message":"429"}'
    line = sse.error_event(inner)
    assert line == (
        b'data: {"code":-500,"message":"{\\"message\\":\\"{\\\\\\"args\\\\\\":{\\\\\\"description'
        b'\\\\\\":\\\\\\"x\\\\\\"},\\\\\\"error_type\\\\\\":\\\\\\"InvokeRateLimitError\\\\\\",'
        b'\\\\\\"message\\\\\\":\\\\\\"429\\\\\\"}\\",\\"error_type\\":\\"PluginInvokeError\\",'
        b'\\"args\\":null}","data":null}\n\n'
    )


def test_chunked_framing_holds_the_exact_size():
    assert text(sse.chunked([b"abc"])) == b"3\r\nabc\r\n"
    assert text(sse.chunked([b"abc", b"x" * 20])) == b"17\r\nabc" + b"x" * 20 + b"\r\n"
