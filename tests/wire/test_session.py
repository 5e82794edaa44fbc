"""One line between host and plugin, in both directions."""

import json
import tracemalloc

import msgspec
import pytest

from tidegate.wire import recovery, session


def test_a_request_line_has_every_envelope_key_and_flattened_fields():
    line = session.request_line(
        "s1",
        user_id="u1",
        type="tool",
        action="invoke_tool",
        data=b'{"provider":"p","tool_parameters":{"n":9007199254740993}}',
        app_id="a",
        context=b'{"k":1}',
    )
    assert b"\n" not in line
    assert json.loads(line) == {
        "session_id": "s1",
        "conversation_id": None,
        "message_id": None,
        "app_id": "a",
        "endpoint_id": None,
        "context": {"k": 1},
        "event": "request",
        "data": {
            "user_id": "u1",
            "type": "tool",
            "action": "invoke_tool",
            "provider": "p",
            "tool_parameters": {"n": 9007199254740993},
        },
    }
    assert b"9007199254740993" in line


def test_a_request_without_fields_is_still_json():
    line = session.request_line("s", user_id="", type="t", action="a", data=b" { } ")
    assert json.loads(line)["data"] == {"user_id": "", "type": "t", "action": "a"}


def test_quotes_in_names_cannot_break_out():
    line = session.request_line('a"b', user_id='x"}', type="t", action="a", data=b"{}")
    decoded = json.loads(line)
    assert decoded["session_id"] == 'a"b'
    assert decoded["data"]["user_id"] == 'x"}'


def test_an_error_of_a_back_call_carries_its_type_beside_a_null():
    data = b'{"error_type":"PermissionDenied","args":null}'
    line = session.backwards_line("s", "r", "error", message="no", data=data)
    assert json.loads(line)["data"] == {
        "backwards_request_id": "r",
        "event": "error",
        "message": "no",
        "data": None,
        "error_type": "PermissionDenied",
        "args": None,
    }


def test_a_backwards_line():
    line = session.backwards_line("s", "r", "response", message="struct", data=b'{"data":"ok"}')
    assert json.loads(line) == {
        "session_id": "s",
        "event": "backwards_response",
        "data": {
            "backwards_request_id": "r",
            "event": "response",
            "message": "struct",
            "data": {"data": "ok"},
        },
    }


def test_newlines_between_tokens_go():
    assert session.one_line(b'{\r\n "a":\n1}') == b'{   "a": 1}'


def test_an_event_keeps_its_payload_as_bytes():
    event = session.decode_event(
        b'{"event":"session","session_id":"s","data":{"type":"stream","data":{"b":1.0, "a":2}}}'
    )
    assert event.data is not None
    assert bytes(event.data.data) == b'{"b":1.0, "a":2}'


@pytest.mark.parametrize("line", [b"", b"text", b"[1]", b'{"event":1}', b'{"event":"a"', b"\xff"])
def test_what_is_no_event_is_refused(line):
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        session.decode_event(line)


def parts(line):
    """The texts and the events of a line, in order."""
    found = []
    for text, _, event in recovery.glued_events(line):
        found += [text] * bool(text) + ([event.event] if event is not None else [])
    return found


BEAT = b'{"event":"heartbeat","session_id":null,"data":{}}'


def test_an_event_after_text_is_found():
    assert parts(b'50%... {"event" ' + BEAT) == [b'50%... {"event" ', "heartbeat"]


def test_an_event_before_text_is_found():
    assert parts(BEAT + b"done") == ["heartbeat", b"done"]


def test_text_without_an_event_is_text():
    assert parts(b'{"event": broken') == [b'{"event": broken']


def test_many_glued_events_are_all_found():
    assert parts(b"a".join([BEAT] * 1000)) == ["heartbeat", *[b"a", "heartbeat"] * 999]


def test_a_number_that_python_would_refuse_does_not_hide_an_event():
    assert parts(b'x{"event":"log","n":' + b"9" * 5000 + b"}y") == [b"x", "log", b"y"]


def test_the_end_of_a_glued_event_is_found_without_making_what_is_in_it():
    """Thirty MB of empty lists are a gigabyte of objects."""
    inside = b"[]," * 500_000 + b"1"
    tracemalloc.start()
    try:
        assert parts(b'x{"event":"log","n":[' + inside + b"]}y") == [b"x", "log", b"y"]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("behind", [b"", b" ", b"y", b"  \xff", b"}"])
def test_what_stands_behind_a_glued_event_is_text(behind):
    found = list(recovery.glued_events(b"x" + BEAT + behind))
    assert found[0][:2] == (b"x", BEAT + behind[: len(behind) - len(behind.lstrip(b" "))])
    assert found[1][0] == behind.lstrip(b" ")


@pytest.mark.parametrize(
    "made_of",
    [b'{"event"', b'{"event":', b'{"event":[', b'{"event":"', b'{"event":{}}', b'{"event":3,'],
)
def test_a_long_line_of_beginnings_is_not_read_again_and_again(made_of, monkeypatch):
    line = made_of * ((1 << 20) // len(made_of))
    read = [0]
    look = recovery._event_at

    def counted(line, start):
        event, end = look(line, start)
        read[0] += end - start
        return event, end

    monkeypatch.setattr(recovery, "_event_at", counted)
    assert b"".join(parts(line)) == line, "all of it is text"
    assert read[0] <= 6 * len(line)


def test_a_back_call_with_an_id_like_a_book_is_refused_without_it():
    """The id stands in every line of the answer."""
    long = b"x" * 2000
    request = b'{"type":"llm","backwards_request_id":"' + long + b'","request":{}}'
    with pytest.raises(session.InvokeUnreadable, match="longer than 1024") as refused:
        session.decode_backcall(request)
    assert refused.value.request_id == ""
