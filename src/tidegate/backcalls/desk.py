"""The target of a host: takes each back-call, lets it through the gate, has it answered.

    reader of the process            greenlet of the back-call
    gate --refused--> refuse()       lane --no turn--> fail() + end()
         --admitted-> spawn ........ responder: respond() … , or fail(); end(), always

* A lane admits so many back-calls of one process and depth. A call waits only for calls of its
  own depth, and those only for deeper ones, so nested calls cannot wait for each other in a ring.
* When the session is over its host abandons the answer, and the greenlet is killed: a request to
  Dify is aborted at that moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any, Final, final

from gevent.lock import BoundedSemaphore
from gevent.pool import Group

from tidegate.backcalls.gate import admit
from tidegate.backcalls.kinds import Kind
from tidegate.backcalls.tally import TALLY
from tidegate.backcalls.target import Answer, BackCall, Caller, Responder, Session
from tidegate.errors import BackCallFailed, BackCallInvalid, Overloaded, TidegateError
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("backcalls")

#: Back-calls below back-calls; a plugin that calls itself without end is stopped there.
MOST_DEPTH: Final = 16
#: So many back-calls of one process may wait for a turn; more are refused at once.
_MOST_WAITING: Final = 2000
#: So many bytes of requests of one process may be held; one request is always taken.
_MOST_HELD: Final = 256 << 20


@final
class Desk:
    """A :class:`tidegate.backcalls.Target`. Made by :func:`tidegate.backcalls.open_target`."""

    def __init__(self, settings: Settings, storage: Responder, others: Responder) -> None:
        """``storage`` answers that type, ``others`` all the rest."""
        self._storage = storage
        self._others = others
        self._width = settings.tidegate_backcalls_at_once
        self._patience = settings.tidegate_backcall_wait
        self._running = Group()

    def invoke(self, call: BackCall, answer: Answer) -> None:
        """See :meth:`Target.invoke`."""
        try:
            kind, session = admit(call)
            self._check_load(call.caller, session, len(call.request))
        except TidegateError as error:
            TALLY.refused(call.type)
            unsaid = call.caller.sparing.ask()
            if unsaid is not None:
                log.warning("back-call refused", **_fields(call), error=str(error), unsaid=unsaid)
            answer.refuse(error.message, _typed(error))
            return
        # Counted until it is dead, not until it is answered: its request is in memory until then.
        greenlet = self._running.spawn(self._serve, kind, call, session, answer)
        call.caller.held += len(call.request)
        greenlet.rawlink(
            partial(_let_go, call, kind, monotonic())
        )  # also when it is killed before it began
        answer.on_abandoned = partial(greenlet.kill, block=False)

    def close(self) -> None:
        """Stop what runs. The plugins are gone by now."""
        self._running.kill()
        self._storage.close()
        self._others.close()

    @property
    def running(self) -> int:
        """Back-calls that are being answered or wait for their turn."""
        return len(self._running)

    def _check_load(self, caller: Caller, session: Session, size: int) -> None:
        if session.depth >= MOST_DEPTH:
            raise BackCallInvalid(f"back-calls are nested {MOST_DEPTH} deep: does it call itself?")
        if caller.waiting >= _MOST_WAITING or (caller.held and caller.held + size > _MOST_HELD):
            raise _overloaded(caller)

    def _serve(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> str:
        """Body of the back-call's greenlet. Whatever happens, the end is the last it does.

        Returns the outcome, for the tally.
        """
        try:
            outcome = self._attempt(kind, call, session, answer)
        except Exception as error:
            # Ours, or an error that could not be told: without an end the plugin waits on.
            unsaid = call.caller.sparing.ask()
            if unsaid is not None:  # what a request can bring about, a thousand a second can
                log.exception("back-call not answered", **_fields(call), unsaid=unsaid)
            answer.fail(f"{kind.failed}internal error: {error!r}", _typed(BackCallFailed("")))
            outcome = "error"
        answer.end()
        return outcome

    def _attempt(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> str:
        responder = self._storage if kind.type == "storage" else self._others
        try:
            with self._turn(call.caller, session):
                responder.respond(kind, call, session, answer)
        except TidegateError as error:
            unsaid = call.caller.sparing.ask()
            if unsaid is not None:
                shown = error.message[:500]
                log.info("back-call failed", **_fields(call), error=shown, unsaid=unsaid)
            answer.fail(error.message, _typed(error))
            return "error"
        return "success"

    @contextmanager
    def _turn(self, caller: Caller, session: Session) -> Iterator[None]:
        # By depth: nested back-calls of one plugin that shared a lane would wait for each other.
        lane = caller.lanes.get(session.depth)
        if lane is None:
            lane = caller.lanes[session.depth] = BoundedSemaphore(self._width)
        caller.waiting += 1
        try:
            # The call's own time, too: an error of ours would come when nobody is there any more.
            patience = min(self._patience, session.deadline.remaining())
            admitted = lane.acquire(timeout=patience)
        finally:
            caller.waiting -= 1
        if not admitted:
            raise _overloaded(caller)
        try:
            yield
        finally:
            lane.release()


def _let_go(call: BackCall, kind: Kind, began: float, greenlet: Any) -> None:
    call.caller.held -= len(call.request)
    # killed with its session, it has no outcome of its own
    outcome = greenlet.value if isinstance(greenlet.value, str) else "abandoned"
    TALLY.ended(kind.type, outcome, began)


def _overloaded(caller: Caller) -> Overloaded:
    return Overloaded(
        f"too many back-calls of this plugin at once: {caller.waiting} wait for their turn, "
        f"{caller.held} bytes are held (TIDEGATE_BACKCALLS_AT_ONCE, TIDEGATE_BACKCALL_WAIT)",
        retry_after=1,
    )


def _typed(error: TidegateError) -> Mapping[str, Any]:
    """What travels beside the text that the SDK raises, for a plugin that looks at it."""
    return {"error_type": error.error_type, "args": error.details or None}


def _fields(call: BackCall) -> dict[str, Any]:
    return {
        "plugin": call.caller.plugin,
        "type": call.type[:100],
        "session": call.session_id,
        "tenant": call.session.tenant if call.session else None,
    }
