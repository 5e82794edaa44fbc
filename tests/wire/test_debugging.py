"""The registration of a debugged plugin as bytes: order, limits, refusals and their lines."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tidegate.errors import RegistrationRefused
from tidegate.wire import debugging
from tidegate.wire.debugging import Registration, Stage, refusal_line

HANDSHAKE = {"type": "handshake", "data": {"key": "k"}}
MANIFEST = {"type": "manifest_declaration", "data": {"name": "kitchen"}}
TOOLS = {"type": "tool_declaration", "data": [{"first": 1}, {"second": 2}]}
END = {"type": "end", "data": {}}


def text(*messages: object) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n\n" for one in messages)


def asset(name: str, content: bytes) -> dict[str, object]:
    data = base64.b64encode(content).decode()
    return {"type": "asset_chunk", "data": {"filename": name, "data": data, "end": False}}


def admitted() -> Registration:
    registration = Registration()
    registration.feed(text(HANDSHAKE))
    assert registration.advance() is Stage.KEY_GIVEN
    registration.admit()
    return registration


def refusal(registration: Registration, data: bytes) -> str:
    registration.feed(data)
    with pytest.raises(RegistrationRefused) as caught:
        registration.advance()
    return caught.value.message


def test_blank_lines_before_the_key_end_as_any_other_noise_does():
    told = refusal(Registration(), b"\n" * 70_000)
    assert told == "handshake failed, no key in the first 4096 bytes"
    patient = Registration()
    for _ in range(4):
        patient.feed(b" \r\n" * 300)
        assert patient.advance() is Stage.AWAITING_KEY
    assert refusal(patient, b"\n" * 600).startswith("handshake failed, no key in the first")


def test_blank_lines_are_skipped_in_one_go(monkeypatch):
    """One by one, 64 KiB of them held the hub for 40 ms."""
    registration = admitted()
    looks = []
    original = Registration._next_line
    monkeypatch.setattr(Registration, "_next_line", lambda self: looks.append(1) or original(self))
    registration.feed(b"\n" * 65536 + text(MANIFEST, TOOLS, END) + b"\n\n")
    assert registration.advance() is Stage.COMPLETE
    assert len(looks) == 3


def test_a_registration_stops_where_the_key_has_to_be_looked_up():
    registration = Registration()
    registration.feed(text(HANDSHAKE, MANIFEST, TOOLS, END))
    assert registration.advance() is Stage.KEY_GIVEN
    assert registration.key == "k"
    assert registration.manifest is None
    registration.admit()
    assert registration.advance() is Stage.COMPLETE
    assert json.loads(registration.manifest) == {"name": "kitchen"}


def test_the_first_provider_counts_and_chunks_of_a_file_are_joined():
    registration = admitted()
    registration.feed(text(MANIFEST, TOOLS, asset("a.svg", b"one"), asset("b.png", b"b")))
    registration.feed(text(asset("a.svg", b"two"), {"type": "dance", "data": 1}, END))
    assert registration.advance() is Stage.COMPLETE
    assert json.loads(registration.providers["tool"]) == {"first": 1}
    assert registration.assets == {"a.svg": b"onetwo", "b.png": b"b"}


def test_what_follows_the_end_is_kept_for_the_sessions():
    registration = admitted()
    registration.feed(text(MANIFEST, TOOLS, END) + b'{"event":"heartbeat"}\n\n{"ev')
    assert registration.advance() is Stage.COMPLETE
    assert registration.rest == b'\n{"event":"heartbeat"}\n\n{"ev'


@given(some.lists(some.integers(1, 60), max_size=20))
def test_however_the_bytes_arrive_the_registration_is_the_same(sizes):
    data = text(HANDSHAKE, MANIFEST, TOOLS, asset("a", b"x" * 50), END) + b"rest"
    registration = Registration()
    for size in [*sizes, len(data)]:
        registration.feed(data[:size])
        data = data[size:]
        if registration.advance() is Stage.KEY_GIVEN:
            registration.admit()
            registration.advance()
    assert registration.stage is Stage.COMPLETE
    assert registration.assets == {"a": b"x" * 50}
    assert registration.rest.endswith(b"rest")


@pytest.mark.parametrize(
    "message", [MANIFEST, TOOLS, END, asset("a", b"b"), {"type": "x", "data": 1}]
)
def test_D_33_nothing_is_taken_before_the_handshake(message):
    registration = Registration()
    assert "invalid handshake message" in refusal(registration, text(message))
    assert registration.stage is Stage.AWAITING_KEY
    assert not registration.assets


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"[]", b"7", b'{"type":"handshake"}', b'{"data":{}}', b"\xff\xfe", b"GET /"],
)
def test_what_cannot_be_read_is_refused(line):
    assert refusal(Registration(), line + b"\n").startswith(
        "handshake failed, invalid handshake message"
    )


@pytest.mark.parametrize("data", [{}, {"key": 7}, {"key": None}, [], "k"])
def test_a_handshake_without_a_key_is_refused(data):
    line = text({"type": "handshake", "data": data})
    assert "invalid handshake message" in refusal(Registration(), line)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (HANDSHAKE, "handshake already completed"),
        (MANIFEST, "declaration already registered"),
        (TOOLS, "tools declaration already registered"),
    ],
)
def test_twice_is_refused(message, line):
    registration = admitted()
    registration.feed(text(MANIFEST, TOOLS))
    registration.advance()
    assert refusal(registration, text(message)) == line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ({"type": "model_declaration", "data": {}}, "models register failed, invalid models"),
        ({"type": "asset_chunk", "data": {"filename": "a"}}, "transfer assets failed"),
        (asset("", b"x"), "transfer assets failed"),
        (asset("../a", b"x"), "transfer assets failed"),
        (asset("a", b""), "transfer assets failed"),
        ({"type": "asset_chunk", "data": {"filename": "a", "data": "%"}}, "assets decode failed"),
        (END, "no registration transferred, cannot initialize"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(message, line):
    assert refusal(admitted(), text(message)).startswith(line)


@pytest.mark.parametrize("kinds", [[MANIFEST], [TOOLS], [MANIFEST, {**TOOLS, "data": []}]])
def test_a_registration_needs_a_manifest_and_a_provider(kinds):
    assert "no registration transferred" in refusal(admitted(), text(*kinds, END))


def test_a_stranger_may_not_make_us_hold_a_long_line():
    registration = Registration()
    assert "a line is over 4096 bytes" in refusal(registration, b"x" * 5000)


def test_a_line_over_the_limit_is_refused_before_it_ends(monkeypatch):
    monkeypatch.setattr(debugging, "MOST_LINE", 10_000)
    assert "a line is over 10000 bytes" in refusal(admitted(), b'{"type":"' + b"x" * 10_000)


def test_assets_and_declarations_have_a_sum(monkeypatch):
    monkeypatch.setattr(debugging, "MOST_ASSETS", 1000)
    registration = admitted()
    registration.feed(text(asset("a", b"x" * 600)))
    registration.advance()
    assert refusal(registration, text(asset("b", b"x" * 600))) == "assets too large, at most 50MB"
    monkeypatch.setattr(debugging, "MOST_DECLARED", 100)
    assert "declarations too large" in refusal(
        admitted(), text({"type": "dance", "data": "x" * 100})
    )


def test_the_refusal_is_one_line_of_text():
    assert refusal_line(RegistrationRefused("bad\nnews é")) == "bad news é\n".encode()
