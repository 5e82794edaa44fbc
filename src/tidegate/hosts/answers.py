"""The answer to one back-call, as lines on the plugin's standard input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec

from tidegate.errors import TidegateError
from tidegate.hosts.writer import Writer
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.sparing import Sparing
from tidegate.wire.session import backwards_line

log = get_log("hosts")

#: Bytes waiting for the plugin from which on an answer is held back, and with it Dify's stream.
HELD_BACK: Final = 1 << 20
#: A plugin that asks and does not read makes the log say so as often as it likes.
_sparing = Sparing()


@final
class BackCallAnswer:
    """A :class:`tidegate.backcalls.Answer`. Made by the process's Talk; ends exactly once.

    ``on_end`` hears of the end, whoever brought it.
    """

    __slots__ = ("_ended", "_on_end", "_request_id", "_writer", "on_abandoned", "session_id")

    def __init__(
        self,
        writer: Writer,
        session_id: str,
        request_id: str,
        on_end: Callable[[BackCallAnswer], None],
    ) -> None:
        self.session_id = session_id
        self.on_abandoned: Callable[[], None] | None = None
        self._writer = writer
        self._request_id = request_id
        self._on_end = on_end
        self._ended = False

    def respond(self, data: bytes, *, stream: bool) -> None:
        """See :meth:`tidegate.backcalls.Answer.respond`."""
        self._wait_and_send("response", message="stream" if stream else "struct", data=data)

    def fail(self, message: str, data: Mapping[str, Any]) -> None:
        """See :meth:`tidegate.backcalls.Answer.fail`."""
        self._wait_and_send("error", message=message, data=msgspec.json.encode(data))

    def end(self) -> None:
        """See :meth:`tidegate.backcalls.Answer.end`."""
        self._wait_and_send("end")
        self._over()

    def refuse(self, message: str, data: Mapping[str, Any]) -> None:
        """See :meth:`tidegate.backcalls.Answer.refuse`."""
        if self._ended:
            return
        lines = (
            self._line("error", message=message, data=msgspec.json.encode(data)),
            self._line("end"),
        )
        for line in lines:
            # It is the plugin that does not read: it loses an answer, and its session with time.
            if not self._writer.send(line):
                _warn()
        self._over()

    def abandon(self, reason: TidegateError) -> None:
        """The session is over: tell the plugin, then whoever works on the answer. Never waits."""
        if self._ended:
            return
        # The plugin first: who works on the answer may be ended by the next line.
        self.refuse(reason.message, {"error_type": reason.error_type, "args": reason.details})
        if self.on_abandoned is not None:
            self.on_abandoned()

    def _over(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(self)

    def _wait_and_send(self, event: str, *, message: str = "", data: bytes = b"null") -> None:
        line = self._line(event, message=message, data=data)
        writer = self._writer
        room = HELD_BACK
        while not self._ended:
            writer.wait_below(room)
            if self._ended or writer.send(line):
                return
            room = 1  # too long for what is left of the budget: alone it is always taken

    def _line(self, event: str, *, message: str = "", data: bytes = b"null") -> bytes:
        return backwards_line(self.session_id, self._request_id, event, message=message, data=data)


def _warn() -> None:
    unsaid = _sparing.ask()
    if unsaid is not None:
        log.warning(
            "answer to a back-call dropped: the plugin does not read its input", unsaid=unsaid
        )
