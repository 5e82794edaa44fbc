"""Back-calls of functions: they come over HTTP to an api process, which hands them on here.

A transaction is a control call of the link; its chunks are the lines that the function reads. It
ends with the answer, with its session, with its time, or because the function hung up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec
from gevent.event import Event

from tidegate.backcalls import BackCall, Caller, Session, Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import BackCallInvalid, SessionOver, TidegateError
from tidegate.link import ServerCall, wait_writable
from tidegate.wire.session import InvokeUnreadable, backwards_line, decode_backcall

#: Seconds after which a blank line keeps the connection alive.
KEEP_ALIVE_EVERY: Final = 25.0
#: A chunk that is no line of an answer: the door makes a blank line of it.
STILL_HERE: Final = b"null"


@final
class TransactionAnswer:
    """A :class:`tidegate.backcalls.Answer` that goes to a function. Ends exactly once."""

    def __init__(
        self, call: ServerCall, session: str, request: str, on_end: Callable[[], None]
    ) -> None:
        self.on_abandoned: Callable[[], None] | None = None
        self._call = call
        self._session = session
        self._request = request
        self._on_end = on_end
        self._over = Event()

    def respond(self, data: bytes, *, stream: bool) -> None:
        """See :meth:`tidegate.backcalls.Answer.respond`."""
        self._send("response", message="stream" if stream else "struct", data=data)
        wait_writable((self._call,))

    def fail(self, message: str, data: Mapping[str, Any]) -> None:
        """See :meth:`tidegate.backcalls.Answer.fail`."""
        self._send("error", message=message, data=msgspec.json.encode(data))

    def end(self) -> None:
        """See :meth:`tidegate.backcalls.Answer.end`."""
        self._send("end")
        self._finished()

    def refuse(self, message: str, data: Mapping[str, Any]) -> None:
        """See :meth:`tidegate.backcalls.Answer.refuse`."""
        self.fail(message, data)
        self.end()

    def abandon(self, reason: TidegateError) -> None:
        """Nobody waits any more: tell the function, then whoever works on it. Never waits."""
        if self._over.is_set():
            return
        self.refuse(reason.message, {"error_type": reason.error_type, "args": reason.details})
        if self.on_abandoned is not None:
            self.on_abandoned()

    def wait(self, seconds: float) -> None:
        """Until the end, ``seconds`` at most, with signs of life."""
        end = SYSTEM_CLOCK.monotonic() + seconds
        while (left := end - SYSTEM_CLOCK.monotonic()) > 0:
            # What stands between us and the function closes what is silent for a minute or so.
            if self._over.wait(min(left, KEEP_ALIVE_EVERY)):
                return
            self._call.send(STILL_HERE)

    def _finished(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self._on_end()

    def _send(self, event: str, *, message: str = "", data: bytes = b"null") -> None:
        if not self._over.is_set():
            line = backwards_line(self._session, self._request, event, message=message, data=data)
            self._call.send(line)


@final
class Transactions:
    """The back-calls of functions that are not answered yet, by signed session."""

    def __init__(self, target: Target, seconds: float) -> None:
        """``seconds``: how long one of them may take (MAX_SERVERLESS_TRANSACTION_TIMEOUT)."""
        self._target = target
        self._seconds = seconds
        self._open: dict[str, set[TransactionAnswer]] = {}

    def carry_out(
        self, call: ServerCall, caller: Caller, signed: str, session: Session, invoke: bytes
    ) -> None:
        """Answer one back-call. Body of the control call's greenlet; ends with the answer.

        BackCallInvalid when it cannot be read.
        """
        try:
            read = decode_backcall(invoke)
        except InvokeUnreadable as error:
            raise BackCallInvalid(f"failed to parse request: {error}") from None
        # Held by the session as well: its end must reach those that nobody waits for here.
        answers = self._open.setdefault(signed, set())
        answer = TransactionAnswer(
            call, signed, read.backwards_request_id, lambda: answers.discard(answer)
        )
        answers.add(answer)
        left = SessionOver("the function hung up")
        # The function hung up, or its api process ended: the work for it stops.
        call.on_cancel = lambda: answer.abandon(left)
        asked = BackCall(
            caller, signed, session, read.backwards_request_id, read.type, bytes(read.request)
        )
        self._target.invoke(asked, answer)
        try:
            answer.wait(min(self._seconds, session.deadline.remaining()))
        finally:
            # Also when the time of this control call is over first: nobody would stop the work.
            answer.abandon(SessionOver(f"no answer within {self._seconds:g} s"))

    def session_over(self, signed: str) -> None:
        """The session ended: so do its back-calls."""
        for answer in list(self._open.pop(signed, ())):
            answer.abandon(SessionOver("the session of this back-call is over"))
