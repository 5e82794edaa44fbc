"""The stream of a call: items, at most one error, the end, exactly once."""

import gevent
import hypothesis.strategies as st
import pytest
from gevent.event import Event
from hypothesis import given, settings

from tidegate.calls import COUNTERS, OutputRules, PluginFailed, Stream, StreamMisused
from tidegate.calls.schemas import compile_schema
from tidegate.deadline import Budget, Deadline
from tidegate.errors import CallFailed, DeadlineExceeded, IdleTimeout, PluginDied, SlowConsumer

ERROR = b'{"error_type":"PluginDied","message":"gone","args":{"exit_code":3}}'


class Upstream:
    def __init__(self):
        self.cancels = 0

    def cancel(self):
        self.cancels += 1


def made(seconds=30.0, memory=1 << 20, spool=0, folder=None, **more):
    stream = Stream(
        Deadline.after(seconds, "test"), Budget(memory, spool), spool_folder=folder, **more
    )
    upstream = Upstream()
    stream.attach(upstream)
    return stream, upstream


@pytest.fixture
def stream():
    stream, _ = made()
    yield stream
    stream.close()


def taken(stream):
    """Everything until the end, and the error it ended with."""
    got = []
    try:
        while bodies := stream.take():
            got += bodies
    except CallFailed as error:
        return got, error
    return got, None


def test_items_then_end(stream):
    stream.push(b"1")
    stream.push(b"2")
    stream.finish()
    assert taken(stream) == ([b"1", b"2"], None)
    assert stream.take() == []


def test_what_was_pushed_before_an_error_comes_first(stream):
    stream.push(b"1")
    stream.fail(ERROR)
    stream.finish()
    got, error = taken(stream)
    assert got == [b"1"]
    assert isinstance(error, PluginDied)
    assert error.details == {"exit_code": 3}
    assert stream.take() == []


def test_the_first_error_counts(stream):
    stream.fail(b'{"error_type":"X","message":"first","args":null}')
    stream.fail(ERROR)
    _, error = taken(stream)
    assert isinstance(error, PluginFailed)
    assert error.raw == b'{"error_type":"X","message":"first","args":null}'


def test_a_waiting_consumer_is_woken_by_an_item(stream):
    consumer = gevent.spawn(stream.take)
    gevent.sleep(0)
    stream.push(b"1")
    assert consumer.get(timeout=5) == [b"1"]


@pytest.mark.parametrize("how", ["finish", "close"])
def test_a_waiting_consumer_is_woken_by_the_end(stream, how):
    consumer = gevent.spawn(stream.take)
    gevent.sleep(0)
    getattr(stream, how)()
    assert consumer.get(timeout=5) == []


def test_close_drops_what_was_not_taken_and_cancels_once():
    stream, upstream = made()
    stream.push(b"1")
    stream.close()
    stream.close()
    dropped = COUNTERS.dropped
    stream.push(b"late")
    assert stream.take() == []
    assert upstream.cancels == 1
    assert COUNTERS.dropped == dropped + 1


def test_close_after_the_end_cancels_nothing():
    stream, upstream = made()
    stream.finish()
    stream.close()
    assert upstream.cancels == 0


def test_a_call_whose_time_was_over_before_it_was_open_is_cancelled():
    stream = Stream(Deadline.after(0, "test"), Budget(1))
    gevent.sleep(0.01)
    upstream = Upstream()
    stream.attach(upstream)
    assert upstream.cancels == 1
    with pytest.raises(DeadlineExceeded):
        stream.take()


def test_a_close_counts_once_also_before_the_first_chunk(stream):
    closed = COUNTERS.closed
    stream.close()
    stream.close()
    assert COUNTERS.closed == closed + 1


def test_a_stream_closes_when_its_end_was_taken(stream):
    closed = COUNTERS.closed
    stream.push(b"1")
    stream.finish()
    stream.take()
    assert COUNTERS.closed == closed
    stream.take()
    assert COUNTERS.closed == closed + 1


def test_a_second_greenlet_that_reads_is_refused(stream):
    stream.push(b"1")
    stream.take()
    other = gevent.spawn(stream.take)
    with pytest.raises(StreamMisused):
        other.get(timeout=5)


def test_a_second_greenlet_that_touches_the_rules_is_refused():
    rules = OutputRules("a/b", "enforce", compile_schema({"type": "object"}))
    rules.apply([b'{"type":"text"}'])
    with pytest.raises(StreamMisused):
        gevent.spawn(rules.apply, [b'{"type":"text"}']).get(timeout=5)
    with pytest.raises(StreamMisused):
        gevent.spawn(rules.finish).get(timeout=5)


def test_the_deadline_ends_a_silent_call_and_says_who_set_it():
    stream, upstream = made(seconds=0.02)
    with pytest.raises(DeadlineExceeded, match=r"killed by timeout.*test") as caught:
        stream.take()
    assert caught.value.details == {"seconds": 0.02, "owner": "test"}
    assert upstream.cancels == 1


def test_D_06_the_idle_limit_counts_from_the_last_item():
    stream, _ = made(idle_seconds=0.05)
    stream.push(b"1")
    assert stream.take() == [b"1"]
    with pytest.raises(IdleTimeout):
        stream.take()


def test_D_02_a_slow_consumer_without_spool_gets_what_was_accepted_then_its_error():
    stream, upstream = made(memory=100)
    stream.push(b"x" * 60)
    stream.push(b"y" * 60)
    stream.push(b"z" * 60)
    got, error = taken(stream)
    assert got == [b"x" * 60]
    assert isinstance(error, SlowConsumer)
    assert upstream.cancels >= 1


def test_one_item_over_the_budget_is_delivered_to_a_consumer_that_keeps_up():
    stream, _ = made(memory=10)
    stream.push(b"x" * 100)
    stream.finish()
    assert taken(stream) == ([b"x" * 100], None)


def test_the_spool_takes_what_memory_does_not_and_keeps_the_order(tmp_path):
    stream, _ = made(memory=1000, spool=1 << 20, folder=tmp_path / "spool")
    items = [b"%05d" % number * 20 for number in range(2000)]
    for item in items:
        stream.push(item)
    stream.finish()
    assert taken(stream) == (items, None)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_consumer_that_catches_up_goes_back_to_memory(tmp_path):
    stream, _ = made(memory=100, spool=1 << 20, folder=tmp_path)
    for number in range(10):
        stream.push(b"%030d" % number)
    got = []
    while len(got) < 10:
        got += stream.take()
    stream.push(b"next")
    assert stream._backlog._spool is None
    assert stream.take() == [b"next"]
    stream.close()


def test_the_spool_has_a_limit_too(tmp_path):
    stream, _ = made(memory=100, spool=1000, folder=tmp_path)
    for _ in range(20):
        stream.push(b"x" * 90)
    got, error = taken(stream)
    assert isinstance(error, SlowConsumer)
    assert got == [b"x" * 90] * len(got)
    assert 0 < len(got) < 20


def test_a_full_disk_costs_this_call_only(tmp_path):
    (tmp_path / "spool").write_text("a file where a folder should be")
    stream, _ = made(memory=10, spool=1000, folder=tmp_path / "spool")
    stream.push(b"x" * 10)
    stream.push(b"y" * 10)
    got, error = taken(stream)
    assert got == [b"x" * 10]
    assert isinstance(error, SlowConsumer)


def test_abort_ends_from_our_side_after_what_was_accepted():
    stream, upstream = made()
    stream.push(b"1")
    stream.abort(SlowConsumer("because"))
    got, error = taken(stream)
    assert (got, str(error)) == ([b"1"], "because")
    assert upstream.cancels == 1


SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}},
    "required": ["count"],
}
BAD = b'{"type":"variable","message":{"variable_name":"count","variable_value":"x","stream":false}}'


def ruled(mode="enforce"):
    return made(rules=OutputRules("a/b", mode, compile_schema(SCHEMA)))[0]


def test_rules_are_checked_after_the_last_chunk_was_taken():
    stream = ruled()
    stream.push(BAD)
    stream.finish()
    got, error = taken(stream)
    assert got == [BAD]
    assert error is not None
    assert str(error).startswith("tool output schema is not valid")


@pytest.mark.parametrize("end", ["error", "close", "deadline"])
def test_rules_are_not_checked_on_any_other_end(end):
    stream = ruled()
    stream.push(BAD)
    assert stream.take() == [BAD]
    if end == "error":
        stream.fail(ERROR)
        assert isinstance(taken(stream)[1], PluginDied)
    elif end == "close":
        stream.close()
        assert taken(stream) == ([], None)
    else:
        stream.abort(Deadline.after(0, "x").error())
        assert isinstance(taken(stream)[1], DeadlineExceeded)


def test_a_chunk_that_cannot_be_typed_ends_the_call_after_the_good_ones():
    stream = ruled("off")
    good = b'{"type":"text","message":{"text":"a"}}'
    stream.push(good + b'\n{"type":"nonsense"}\n' + good)
    stream.push(good)
    stream.finish()
    got, error = taken(stream)
    assert got == [good]
    assert error is not None
    assert error.error_type == "ProtocolError"


steps = st.lists(
    st.sampled_from(["push", "push", "push", "fail", "finish", "close", "take", "yield"]),
    max_size=40,
)


@given(steps)
@settings(deadline=None)
def test_every_order_ends_exactly_once(order):
    stream, upstream = made()
    closed = COUNTERS.closed
    model = {"accepted": [], "ended": None, "closed": False}
    got, outcomes = [], []
    done = Event()

    def consume():
        outcome = taken(stream)
        got.extend(outcome[0])
        outcomes.append(outcome[1])
        done.set()

    gevent.spawn(consume)
    for number, step in enumerate(order):
        open_still = model["ended"] is None and not model["closed"]
        if step == "push":
            stream.push(b"%d" % number)
            if open_still:
                model["accepted"].append(b"%d" % number)
        elif step in ("fail", "finish"):
            stream.fail(ERROR) if step == "fail" else stream.finish()
            if open_still:
                model["ended"] = step
        elif step == "close":
            stream.close()
            model["closed"] = True
        else:
            gevent.sleep(0)
    if model["ended"] is None and not model["closed"]:
        stream.finish()
        model["ended"] = "finish"
    assert done.wait(5)
    if model["closed"]:
        assert got == model["accepted"][: len(got)]
    else:
        assert got == model["accepted"]
        assert isinstance(outcomes[0], PluginDied) == (model["ended"] == "fail")
    assert len(outcomes) == 1
    stream.close()
    assert COUNTERS.closed == closed + 1
    assert upstream.cancels <= 1


def test_a_spool_that_cannot_be_read_ends_the_call_typed_and_lets_go(tmp_path):
    stream, upstream = made(memory=10, spool=1 << 20, folder=tmp_path)
    stream.push(b"first")
    for number in range(3):
        stream.push(b"%d" % number * 100)
    assert stream.take() == [b"first"]
    stream._backlog._spool._segments[0]._file.truncate(50)  # as a disk does that lost a block
    with pytest.raises(CallFailed, match="cannot be read"):
        stream.take()
    assert upstream.cancels == 1
    assert stream.closed
