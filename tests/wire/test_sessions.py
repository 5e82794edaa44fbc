"""What a plugin's output means for its sessions; T-P11 holds it against a small model."""

import json
import os

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tidegate.wire import sessions as sessions_module
from tidegate.wire.sessions import Sessions

SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))


class Buffer(list):
    """Chunks are views of the lines they came in; they compare as the bytes that they show."""

    def __eq__(self, other):
        return [bytes(one) for one in self] == other

    __hash__ = None


class Port:
    def __init__(self):
        self.buffer = Buffer()
        self.closed = False
        self.ends = []

    def conclude(self, error=b""):
        if not self.closed:
            self.closed = True
            self.ends.append(error)


class Heard:
    def __init__(self):
        self.heartbeats = 0
        self.logs = []
        self.noises = []
        self.lost = 0
        self.invokes = []

    def heartbeat(self):
        self.heartbeats += 1

    def log(self, level, message):
        self.logs.append((level, message))

    def noise(self, text):
        self.noises.append(text)

    def dropped(self, lines):
        self.lost += lines

    def invoke(self, session_id, request):
        self.invokes.append((session_id, request))


def line(session_id, type, data="{}"):
    return (
        f'{{"event":"session","session_id":"{session_id}",'
        f'"data":{{"type":"{type}","data":{data}}}}}\n\n'
    ).encode()


def made(limit=10_000):
    heard = Heard()
    return Sessions(limit, heard), heard


def opened(sessions, *names):
    ports = [Port() for _ in names]
    for name, port in zip(names, ports, strict=True):
        sessions.open(name, port)
    return ports


def error_of(port):
    (error,) = port.ends
    return json.loads(error)


def test_start_of_a_real_plugin_is_no_noise():
    sessions, heard = made()
    sessions.receive(b'{"version":"0.0.1","type":"plugin","author":"a"}\n\n')
    sessions.receive(
        b'{"event": "log", "data": {"level": "INFO", "message": "Installed tool: x", '
        b'"timestamp": 1795291966.7}}\n{"event":"heartbeat","session_id":null,"data":{}}\n\n'
    )
    assert heard.heartbeats == 1
    assert heard.logs == [("INFO", "Installed tool: x")]
    assert heard.noises == []


def test_chunks_go_to_their_session_only():
    sessions, _ = made()
    one, two = opened(sessions, "1", "2")
    dirty = sessions.receive(line("1", "stream", '{"a":1}') + line("2", "stream", '{"b":2}'))
    assert (one.buffer, two.buffer) == ([b'{"a":1}'], [b'{"b":2}'])
    assert dirty == [one, two]


def test_an_error_passes_raw_and_the_end_after_it_is_late():
    sessions, _ = made()
    (port,) = opened(sessions, "1")
    sessions.receive(line("1", "error", '{"error_type":"E","message":"m","args":{"x":[1.0]}}'))
    sessions.receive(line("1", "end"))
    assert port.ends == [b'{"error_type":"E","message":"m","args":{"x":[1.0]}}']
    assert sessions.counters.late == 1


def test_T_P1_noise_of_every_kind_costs_no_session():
    sessions, heard = made()
    (port,) = opened(sessions, "1")
    sessions.receive(b"\x00\xff\xfe\n\x1b[31mred\x1b[0m\nprint()\n{}\n[1,2]\nnull\n12\n")
    sessions.receive(line("1", "stream", "1"))
    assert port.buffer == [b"1"]
    assert port.ends == []
    assert len(heard.noises) == 7


def test_an_error_that_is_no_message_any_more_is_named_by_its_size():
    sessions, _ = made(limit=8 << 20)
    ports = opened(sessions, "1", "2")
    sessions.receive(line("1", "error", '{"message":"' + "x" * (1 << 20) + '"}'))
    sessions.receive(line("2", "error", '{"message":"' + "x" * (1 << 19) + '"}'))
    assert b"an error of 1048590 bytes, over 1048576" in ports[0].ends[0]
    assert len(ports[1].ends[0]) > 1 << 19


FLOODS = {
    "short lines": (b"x\n", True),
    "empty objects": (b"{}\n", True),
    "broken events": (b'{"event"\n', False),
}


@pytest.mark.parametrize("name", FLOODS)
def test_T_P1_a_flood_of_noise_is_counted_and_hardly_looked_at(name, monkeypatch):
    """A read of 1 MiB of `x` lines took 1.6 s, in which nobody else was served."""
    text, told_by_its_look = FLOODS[name]
    sessions, heard = made()
    [port] = opened(sessions, "1")
    looked = []
    real = sessions_module.decode_event
    monkeypatch.setattr(
        sessions_module, "decode_event", lambda line: looked.append(line) or real(line)
    )
    searched = []
    find = sessions_module.glued_events
    monkeypatch.setattr(
        sessions_module, "glued_events", lambda line: searched.append(line) or find(line)
    )
    sessions.receive(text * 20_000 + line("1", "stream", '"a"') + text * 20_000)
    assert port.buffer == [b'"a"']
    assert heard.noises == [text.strip()] * 1000
    assert heard.lost == 39_000
    assert sessions.counters.noise == 40_000
    assert len(looked) == (1 if told_by_its_look else 40_001)
    assert len(searched) <= 8192
    sessions.receive(b"later\n")
    assert heard.noises[-1] == b"later"
    assert heard.lost == 39_000


def test_text_glued_before_a_message_loses_nothing():
    sessions, heard = made()
    (port,) = opened(sessions, "1")
    sessions.receive(b"progress 50%... " + line("1", "stream", '{"n":1}'))
    assert port.buffer == [b'{"n":1}']
    assert heard.noises == [b"progress 50%... "]


def test_text_glued_between_a_message_and_its_newline_loses_nothing():
    sessions, heard = made()
    (port,) = opened(sessions, "1")
    glued = line("1", "stream", '"\xe9"').strip() + b"done" + line("1", "stream", '{"n":2}')
    sessions.receive(glued)
    assert port.buffer == ['"\xe9"'.encode(), b'{"n":2}']
    assert heard.noises == [b"done"]


def test_T_P10_a_message_nested_too_deeply_ends_its_session_only():
    sessions, _ = made(limit=100_000)
    deep, other = opened(sessions, "deep", "other")
    sessions.receive(line("deep", "stream", "[" * 10_000 + "]" * 10_000))
    sessions.receive(line("other", "stream", "1"))
    assert error_of(deep)["error_type"] == "ProtocolError"
    assert other.buffer == [b"1"]


def test_what_callers_must_not_see_is_taken_out_of_errors_and_ends_are_heard():
    ended = []
    sessions = Sessions(
        1000, Heard(), on_end=ended.append, clean=lambda error: error.replace(b"/srv/", b"")
    )
    one, two = opened(sessions, "1", "2")
    sessions.receive(line("1", "error", '{"message":"/srv/a.py"}') + line("2", "end"))
    assert one.ends == [b'{"message":"a.py"}']
    assert two.ends == [b""]
    assert ended == ["1", "2"]


def test_T_P3_a_line_over_the_limit_ends_its_session_typed_and_no_other():
    sessions, _ = made(limit=500)
    big, other = opened(sessions, "big", "other")
    sessions.receive(line("big", "stream", '"' + "x" * 600 + '"') + line("other", "stream", "2"))
    error = error_of(big)
    assert error["error_type"] == "MessageTooLarge"
    assert error["args"]["limit"] == 500
    assert error["args"]["setting"] == "PLUGIN_RUNTIME_MAX_BUFFER_SIZE"
    assert other.buffer == [b"2"]


def test_a_damaged_line_ends_the_session_that_it_names():
    sessions, _ = made()
    hurt, other = opened(sessions, "hurt", "other")
    sessions.receive(
        b'{"event":"session","session_id":"hurt","data":{"type":"stream","da\n'
        + line("other", "stream", "1")
    )
    assert error_of(hurt)["error_type"] == "ProtocolError"
    assert other.ends == []


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (r"a\ud83d", r"a\ufffd"),
        (r"\ude00b", r"\ufffdb"),
        (r"\uD83D\uD83D\uDE00", r"\ufffd\uD83D\uDE00"),
        (r"\ude00\ud83d\ufffd\u00e9", r"\ufffd\ufffd\ufffd\u00e9"),
        (r"\\ud83d \ud83d \"", r"\\ud83d \ufffd \""),
    ],
)
def test_half_a_character_costs_that_character_and_no_call(sent, passed):
    sessions, heard = made()
    hurt, other = opened(sessions, "hurt", "other")
    sessions.receive(line("hurt", "stream", f'"{sent}"') + line("other", "stream", "1"))
    sessions.receive(line("hurt", "stream", "2") + line("hurt", "end"))
    assert hurt.buffer == [f'"{passed}"'.encode(), b"2"]
    assert hurt.ends == [b""]
    assert other.buffer == [b"1"]
    assert heard.noises == []


def test_an_unknown_message_type_ends_its_session_in_the_references_words():
    sessions, _ = made()
    (port,) = opened(sessions, "1")
    sessions.receive(line("1", "dance"))
    assert error_of(port) == {
        "error_type": "unknown_stream_message_type",
        "message": "unknown stream message type: dance",
        "args": None,
    }


@pytest.mark.parametrize("data", ['{"type":"stream"}', '{"data":{}}', "{}"])
def test_a_message_without_type_or_data_is_a_protocol_error(data):
    sessions, _ = made()
    (port,) = opened(sessions, "1")
    sessions.receive(f'{{"event":"session","session_id":"1","data":{data}}}\n'.encode())
    assert error_of(port)["error_type"] == "ProtocolError"


def test_T_P5_messages_of_unknown_and_closed_sessions_are_dropped_and_counted():
    sessions, _ = made()
    (port,) = opened(sessions, "1")
    sessions.forget("1")
    assert sessions.receive(line("1", "stream") + line("nobody", "stream")) == []
    assert port.buffer == []
    assert sessions.counters.late == 2


def test_T_P6_an_answer_after_its_session_reaches_no_other():
    sessions, _ = made()
    opened(sessions, "old")
    sessions.forget("old")
    (new,) = opened(sessions, "new")
    sessions.receive(line("old", "stream", '"late"') + line("old", "end"))
    assert new.buffer == []
    assert new.ends == []


def test_back_calls_of_open_and_closed_sessions_are_heard():
    sessions, heard = made()
    opened(sessions, "1")
    request = '{"type":"storage","backwards_request_id":"r","request":{}}'
    sessions.receive(line("1", "invoke", request) + line("gone", "invoke", request))
    assert [session for session, _ in heard.invokes] == ["1", "gone"]


def test_the_end_of_the_process_ends_every_session_once():
    sessions, _ = made()
    ports = opened(sessions, "1", "2")
    assert sessions.end_all(b"died") == ports
    assert sessions.end_all(b"again") == []
    assert [port.ends for port in ports] == [[b"died"], [b"died"]]


def test_an_end_behind_a_line_over_the_limit_does_not_hide_the_loss():
    sessions, _ = made(limit=500)
    (port,) = opened(sessions, "1")
    sessions.receive(line("1", "stream", '"' + "x" * 600 + '"') + line("1", "end"))
    assert error_of(port)["error_type"] == "MessageTooLarge"


class SessionProtocol(RuleBasedStateMachine):
    """T-P11: sessions open, speak, end and are forgotten in any order, cut anywhere."""

    names = Bundle("names")

    def __init__(self):
        super().__init__()
        self.sessions, self.heard = made(limit=400)
        self.ports = {}
        self.expected = {}
        self.open_now = set()
        self.unsent = b""
        self.count = 0

    @rule(target=names)
    def open(self):
        self.settle()
        name = f"s{len(self.ports)}"
        self.ports[name] = Port()
        self.expected[name] = {"chunks": [], "end": None}
        self.sessions.open(name, self.ports[name])
        self.open_now.add(name)
        return name

    def says(self, name, type, data, end=None):
        self.unsent += line(name, type, data)
        if name not in self.open_now:
            return
        if type == "stream":
            self.expected[name]["chunks"].append(data.encode())
        else:
            self.expected[name]["end"] = end
            self.open_now.discard(name)

    @rule(name=names)
    def stream(self, name):
        self.count += 1
        self.says(name, "stream", f'{{"n":{self.count}}}')

    @rule(name=names)
    def end(self, name):
        self.says(name, "end", "{}", b"")

    @rule(name=names)
    def error(self, name):
        self.says(name, "error", '{"message":"m"}', b'{"message":"m"}')

    @rule(name=names)
    def unknown(self, name):
        self.says(name, "dance", "{}", "unknown_stream_message_type")

    @rule(name=names)
    def too_long(self, name):
        self.says(name, "huge", '"' + "x" * 500 + '"', "MessageTooLarge")

    @rule(text=st.sampled_from([b"print\n", b"{}\n", b"\xff\n", b"glued "]))
    def noise(self, text):
        self.unsent += text

    @rule(name=names)
    def forget(self, name):
        self.settle()
        self.sessions.forget(name)
        self.open_now.discard(name)

    @rule(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=20))
    def receive(self, sizes):
        for size in sizes:
            piece, self.unsent = self.unsent[:size], self.unsent[size:]
            if piece:
                self.sessions.receive(piece)

    def settle(self):
        """Opening and forgetting act on what was read: read all that was written first."""
        if self.unsent:
            self.sessions.receive(self.unsent + b"\n")
            self.unsent = b""

    @invariant()
    def each_ends_at_most_once(self):
        assert all(len(port.ends) <= 1 for port in self.ports.values())

    def teardown(self):
        self.settle()
        for name, port in self.ports.items():
            expected = self.expected[name]
            assert port.buffer == expected["chunks"]
            if expected["end"] is None:
                assert port.ends == []
            elif isinstance(expected["end"], bytes):
                assert port.ends == [expected["end"]]
            else:
                assert error_of(port)["error_type"] == expected["end"]


TestSessionProtocol_T_P11 = SessionProtocol.TestCase
TestSessionProtocol_T_P11.pytestmark = [
    pytest.mark.stretched,
    pytest.mark.limit(1800, "ten thousand runs in a soak"),
]
TestSessionProtocol_T_P11.settings = settings(
    max_examples=10_000 if SOAK else 100, stateful_step_count=40, deadline=None
)


def test_a_line_of_escapes_is_not_mended_and_costs_its_session_only():
    """Each escape is a call of Python: thirty MB of them stopped the host for 1.4 s."""
    sessions, _ = made(limit=8 << 20)
    hostile, honest = opened(sessions, "hostile", "honest")
    escapes = r"\n" * (1 << 18) + r"\ud83d"
    sessions.receive(line("hostile", "stream", f'"{escapes}"'))
    assert error_of(hostile)["error_type"] == "ProtocolError"
    sessions.receive(line("honest", "stream", r'"a\n\ud83d"'))
    assert honest.buffer == [rb'"a\n\ufffd"']


def test_many_lines_of_escapes_share_the_allowance_of_one_read():
    sessions, _ = made(limit=8 << 20)
    ports = opened(sessions, *map(str, range(8)))
    escapes = r"\n" * (1 << 15) + r"\ud83d"
    sessions.receive(b"".join(line(str(n), "stream", f'"{escapes}"') for n in range(8)))
    assert sum(bool(port.buffer) for port in ports) == 3


def test_what_a_failing_read_has_changed_is_not_lost():
    """A session that ended in it is in no table any more: nobody else would ever flush it."""

    class Failing(Heard):
        def heartbeat(self):
            raise RuntimeError("a defect of ours")

    sessions = Sessions(1000, Failing())
    ended, spoke = opened(sessions, "ended", "spoke")
    data = line("ended", "end", "{}") + line("spoke", "stream", "1")
    with pytest.raises(RuntimeError):
        sessions.receive(data + b'{"event":"heartbeat","data":{}}\n')
    assert sessions.unsent() == [ended, spoke]
