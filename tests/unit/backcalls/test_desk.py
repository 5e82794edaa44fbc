"""The desk: turns, always an end, an abandoned answer stops the work."""

from __future__ import annotations

import json
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.unit.backcalls.conftest import PLUGIN, RecordedAnswer, back_call, session
from tidegate.backcalls import TALLY, Answer, BackCall, Caller, Desk, Kind, Session, open_target
from tidegate.errors import BackCallFailed, StartRefused
from tidegate.settings import Settings


class Work:
    """A Responder that does what the test says."""

    def __init__(self) -> None:
        self.seen: list[Kind] = []
        self.gate = Event()
        self.running = 0
        self.most = 0
        self.stopped = 0
        self.deed: Any = None

    def respond(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> None:
        self.seen.append(kind)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.deed is not None:
                self.deed(answer)
            else:
                self.gate.wait()
                answer.respond(b'{"ok":1}', stream=False)
        except gevent.GreenletExit:
            self.stopped += 1
            raise
        finally:
            self.running -= 1

    def close(self) -> None:
        self.gate.set()


@pytest.fixture
def work():
    return Work()


def desk_of(work: Work, **variables: object) -> Desk:
    settings = Settings.load({name: str(value) for name, value in variables.items()})
    return Desk(settings, Work(), work)


@pytest.fixture
def desk(work):
    made = desk_of(work)
    yield made
    made.close()


def ask(desk: Desk, call: BackCall) -> RecordedAnswer:
    answer = RecordedAnswer()
    desk.invoke(call, answer)
    return answer


def test_an_answer_ends_once_after_its_pieces(desk, work, caller):
    work.gate.set()
    answer = ask(desk, back_call(caller, "llm", {})).wait()
    assert (answer.pieces, answer.error, answer.ends) == ([{"ok": 1}], None, 1)


def test_T_P1_refusals_without_end_are_answered_but_not_all_logged(desk, caplog):
    """A read of 1 MiB holds 8,000 of them: each was two lines of the host's log."""
    flooding, other = Caller(PLUGIN, {}), Caller("acme/other:1.0.0", {})
    answers = [ask(desk, back_call(flooding, "tool", {})) for _ in range(500)]
    assert all(answer.error and answer.ends == 1 for answer in answers)
    assert 1 <= caplog.text.count("back-call refused") <= 40
    caplog.clear()
    ask(desk, back_call(other, "tool", {}))
    assert "back-call refused" in caplog.text  # another plugin's is not lost


def test_a_refusal_is_typed_ended_and_logged(desk, work, caplog):
    answer = ask(desk, back_call(Caller(PLUGIN, {}), "tool", {}))
    assert answer.error == "permission denied, you need to enable tool access in plugin manifest"
    assert answer.typed == {"error_type": "PermissionDenied", "args": {"permission": "tool"}}
    assert answer.ends == 1
    assert work.seen == []
    assert "back-call refused" in caplog.text


@pytest.mark.parametrize("error", [BackCallFailed("it broke"), RuntimeError("a defect")])
def test_an_error_is_told_and_ended(desk, work, caller, error):
    def deed(answer):
        answer.respond(b"{}", stream=True)
        raise error

    work.deed = deed
    answer = ask(desk, back_call(caller, "llm", {})).wait()
    assert len(answer.pieces) == 1
    assert str(error) in answer.error
    assert answer.typed["error_type"] == "BackCallFailed"
    assert answer.ends == 1


def test_an_error_that_cannot_be_told_as_it_is_ends_the_answer_all_the_same(desk, work, caller):
    class Deaf(RecordedAnswer):
        """Cannot make JSON of the first error, as when a detail of it is an object."""

        def fail(self, message, data):
            if "it broke" in message:
                raise TypeError("no JSON")
            super().fail(message, data)

    def deed(answer):
        raise BackCallFailed("it broke")

    work.deed = deed
    answer = Deaf()
    desk.invoke(back_call(caller, "llm", {}), answer)
    answer.wait()
    assert "internal error: TypeError" in answer.error
    assert answer.ends == 1


def test_an_abandoned_answer_stops_the_work_at_once(desk, work, caller):
    answer = ask(desk, back_call(caller, "llm", {}))
    gevent.sleep(0)
    assert work.running == 1
    answer.on_abandoned()
    gevent.sleep(0.01)
    assert (work.running, work.stopped, desk.running) == (0, 1, 0)
    assert answer.ends == 0  # its host has ended it


def test_so_many_run_at_once_and_the_others_wait_for_their_turn(work, caller):
    desk = desk_of(work, TIDEGATE_BACKCALLS_AT_ONCE=3)
    answers = [ask(desk, back_call(caller, "llm", {})) for _ in range(12)]
    gevent.sleep(0.01)
    assert work.running == 3
    work.gate.set()
    assert all(answer.wait().error is None for answer in answers)
    assert work.most == 3
    desk.close()


def test_a_turn_that_does_not_come_is_an_overload(work, caller):
    desk = desk_of(work, TIDEGATE_BACKCALLS_AT_ONCE=1, TIDEGATE_BACKCALL_WAIT=0.05)
    ask(desk, back_call(caller, "llm", {}))
    answer = ask(desk, back_call(caller, "llm", {})).wait()
    assert "TIDEGATE_BACKCALLS_AT_ONCE" in answer.error
    assert answer.typed["error_type"] == "Overloaded"
    desk.close()


def test_a_flood_is_refused_before_it_takes_greenlets(work, caller):
    desk = desk_of(work, TIDEGATE_BACKCALLS_AT_ONCE=1)
    caller.waiting = 2000
    answer = ask(desk, back_call(caller, "llm", {}))
    assert answer.typed["error_type"] == "Overloaded"
    assert answer.ends == 1
    assert desk.running == 0
    desk.close()


def test_long_requests_are_held_up_to_a_limit(desk, work, caller):
    long = b'{"file":"' + b"0" * (1 << 20) + b'"}'
    answers = [ask(desk, back_call(caller, "llm", long)) for _ in range(3)]
    assert caller.held == 3 * len(long)
    answers[0].on_abandoned()  # before it began
    work.gate.set()
    answers[1].wait()
    answers[2].wait()
    gevent.sleep(0)
    assert caller.held == 0
    caller.held = 256 << 20
    refused = ask(desk, back_call(caller, "llm", long))
    assert refused.typed["error_type"] == "Overloaded"
    caller.held = 0


def test_T21_a_nested_call_never_waits_for_the_calls_above_it(work, caller):
    desk = desk_of(work, TIDEGATE_BACKCALLS_AT_ONCE=1)
    answers = [
        ask(desk, back_call(caller, "tool", {}, of=session(depth=depth))) for depth in range(5)
    ]
    gevent.sleep(0.01)
    assert work.running == 5
    work.gate.set()
    assert all(answer.wait().error is None for answer in answers)
    desk.close()


def test_a_plugin_that_calls_itself_without_end_is_stopped(desk, caller):
    answer = ask(desk, back_call(caller, "tool", {}, of=session(depth=16)))
    assert "nested 16 deep" in answer.error


def test_storage_goes_to_its_own_responder(caller):
    storage, others = Work(), Work()
    storage.gate.set()
    desk = Desk(Settings.load({}), storage, others)
    ask(desk, back_call(caller, "storage", {})).wait()
    assert len(storage.seen) == 1
    assert others.seen == []
    desk.close()


def test_a_host_that_cannot_answer_says_what_is_missing(caller):
    desk = open_target(Settings.load({}))
    answer = ask(desk, back_call(caller, "app", {"app_id": "a"})).wait()
    assert "TIDEGATE_BACKCALLS=self" in answer.error
    assert answer.typed == {"error_type": "NeedsDify", "args": {"call": "app"}}
    json.dumps(answer.typed)
    desk.close()


@pytest.mark.parametrize("url", ["", "api:5001", "ftp://api", "http://", "http://api:port"])
def test_dify_without_a_good_address_is_refused_at_start(url):
    settings = Settings.load({"TIDEGATE_BACKCALLS": "dify", "DIFY_INNER_API_URL": url})
    with pytest.raises(StartRefused, match="DIFY_INNER_API_URL"):
        open_target(settings)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it():
    environ = {"DIFY_INNER_API_URL": "http://api", "DIFY_INNER_API_KEY": "se\ncret"}
    with pytest.raises(StartRefused, match="DIFY_INNER_API_KEY") as caught:
        open_target(Settings.load(environ))
    assert "cret" not in str(caught.value)


def counted(type: str) -> dict[str, int]:
    """How many back-calls of ``type`` this process counted, by outcome."""
    rows = [one for one in TALLY.shown() if one["type"] == type and "count" in one]
    return {str(one["outcome"]): int(str(one["count"])) for one in rows}


def test_every_back_call_is_counted_once_by_how_it_ended(desk, work, caller):
    before = counted("rerank")
    ask(desk, back_call(Caller(PLUGIN, {}), "rerank", {}))
    abandoned = ask(desk, back_call(caller, "rerank", {}))
    while not work.running:
        gevent.sleep()  # gives way until its greenlet began
    abandoned.on_abandoned()
    work.gate.set()
    ask(desk, back_call(caller, "rerank", {})).wait()

    def fail(answer):
        raise BackCallFailed("it broke")

    work.deed = fail
    ask(desk, back_call(caller, "rerank", {})).wait()
    while desk.running:
        gevent.sleep()
    gevent.sleep()  # links of a greenlet run in the turn after its end
    grown = {name: count - before.get(name, 0) for name, count in counted("rerank").items()}
    assert grown == {"refused": 1, "abandoned": 1, "success": 1, "error": 1}
    assert any(one["type"] == "rerank" and "seconds" in one for one in TALLY.shown())


def test_T_P1_types_that_are_none_make_one_series_of_metrics(desk, caller):
    for number in range(100):
        ask(desk, back_call(caller, f"nonsense{number}", {}))
    assert not [one for one in TALLY.shown() if "nonsense" in str(one["type"])]
    assert counted("unknown")["refused"] >= 100
