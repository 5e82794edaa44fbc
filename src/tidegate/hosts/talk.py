"""What a plugin says apart from its answers: readiness, logs, noise, back-calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from tidegate.backcalls import BackCall, Caller, Session, Target
from tidegate.errors import SessionOver, TidegateError
from tidegate.hosts.answers import BackCallAnswer
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.writer import Writer
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.sparing import Sparing
from tidegate.wire.session import InvokeUnreadable, decode_backcall, session_error

log = get_log("hosts")

#: The host's log shows this much of what a plugin prints, and no oftener; its own log has it all.
_SHOWN: Final = 300
_TELL_EVERY: Final = 0.2
_BURST: Final = 20
_LEVELS: Final = {"warn": "warning", "fatal": "error", "critical": "error"}


@final
class Talk:
    """Listener of one process's sessions (wire/ports). Called by its reader: never waits.

    ``session_of`` gives an open session, ``break_off`` ends one with an error.
    """

    def __init__(
        self,
        caller: Caller,
        plugin_log: PluginLog,
        *,
        ready: Callable[[], None],
        session_of: Callable[[str], Session | None],
        break_off: Callable[[str, bytes], None],
        target: Target,
    ) -> None:
        self._caller = caller
        self._log = plugin_log
        self._ready = ready
        self._session_of = session_of
        self._break_off = break_off
        self._target = target
        self._heard_from = False
        self._telling = Sparing(_TELL_EVERY, _BURST)
        self._open: dict[str, set[BackCallAnswer]] = {}
        self.writer: Writer | None = None

    def heartbeat(self) -> None:
        """Alive; the first one means ready."""
        if not self._heard_from:
            self._heard_from = True
            self._ready()

    def log(self, level: str, message: str) -> None:
        """A log line of the SDK, or its complaint about a line of ours."""
        name = level.lower()
        # The plugin's own word stands before its line in the log: it must be one, and no new line.
        word = name[:16] if name.isidentifier() else "log"
        self._log.write(_LEVELS.get(name, word), message)

    def noise(self, text: bytes) -> None:
        """``print()`` and the like: to the plugin's log, and a little of it to the host's."""
        self._log.write("stdout", text)
        if self._telling.ask() is not None:
            shown = text[:_SHOWN].decode("utf-8", "backslashreplace")
            log.info("plugin printed", plugin=self._caller.plugin, text=shown)

    def dropped(self, lines: int) -> None:
        """More of it than anybody reads: counted in the plugin's log."""
        self._log.drop(lines)

    # ------------------------------------------------------------------ back-calls

    def invoke(self, session_id: str, request: bytes) -> None:
        """A back-call: handed to the target. One that cannot be read ends its session."""
        writer = self.writer
        if writer is None:
            return
        # Read here and not where it is answered: what cannot be read has no id to answer to, so
        # the session itself must end, and only this one can end it.
        try:
            invoke = decode_backcall(request)
        except InvokeUnreadable as error:
            self._unreadable(writer, session_id, error)
            return
        answer = BackCallAnswer(writer, session_id, invoke.backwards_request_id, self._ended)
        session = self._session_of(session_id)
        if session is not None:  # else it is refused at once, and nothing is open
            self._open.setdefault(session_id, set()).add(answer)
        call = BackCall(
            self._caller,
            session_id,
            session,
            invoke.backwards_request_id,
            invoke.type,
            bytes(invoke.request),
        )
        self._target.invoke(call, answer)

    def session_over(self, session_id: str, reason: TidegateError | None = None) -> None:
        """Abandon the back-calls of a session. Called when it ended, however it did."""
        answers = self._open.pop(session_id, None)
        if answers:
            over = reason or SessionOver("the session of this back-call is over")
            for answer in list(answers):  # each takes itself out
                answer.abandon(over)

    def close(self) -> None:
        """The process is gone: abandon every back-call of it."""
        for session_id in list(self._open):
            self.session_over(session_id)

    @property
    def backcalls(self) -> int:
        """Back-calls that are not answered yet."""
        return sum(map(len, self._open.values()))

    def _ended(self, answer: BackCallAnswer) -> None:
        answers = self._open.get(answer.session_id)
        if answers is not None:
            answers.discard(answer)
            if not answers:
                del self._open[answer.session_id]

    def _unreadable(self, writer: Writer, session_id: str, error: InvokeUnreadable) -> None:
        self._log.write("error", f"back-call that cannot be read: {error}")
        message = f"invoke dify failed: {error}"
        if error.request_id:
            answer = BackCallAnswer(writer, session_id, error.request_id, self._ended)
            answer.refuse(message, {"error_type": "BackCallInvalid", "args": None})
        self._break_off(session_id, session_error("invoke_dify_error", message))
