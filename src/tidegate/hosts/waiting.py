"""Calls that wait for a plugin to be up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, final

from tidegate.deadline import Deadline
from tidegate.errors import CallFailed, PluginStartFailed
from tidegate.hosts.deadlines import Deadlines
from tidegate.link import ServerCall
from tidegate.wire.heads import PluginHead

#: Words that Dify looks for when a plugin does not run.
NOT_FOUND: Final = "no available node, plugin runtime not found"


@final
class WaitingLine:
    """The line before one plugin's door. Owned by its supervisor; nothing here waits.

    A call leaves it by :meth:`take`, by failing with the others, when its caller leaves, or when
    it has waited for ``limit`` seconds (or its own time is over); ``explain`` then says what the
    start is at.
    """

    def __init__(self, limit: float, explain: Callable[[], str]) -> None:
        self._limit = limit
        self._explain = explain
        self._calls: dict[str, ServerCall] = {}
        self._patience = Deadlines(self._waited_too_long)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: ServerCall) -> None:
        """Put ``call`` at the end of the line. Refused when its session id waits already."""
        head = call.head
        assert isinstance(head, PluginHead)  # noqa: S101 - the host routes by this very type
        if head.session in self._calls:
            call.fail(CallFailed(f"session {head.session} is open already").as_json())
            return
        self._calls[head.session] = call
        call.on_cancel = partial(self._leave, head.session)
        self._patience.add(head.session, min(head.seconds, self._limit))

    def take(self) -> list[ServerCall]:
        """Everybody who waits, in order; the line is empty then."""
        calls, self._calls = self._calls, {}
        for session_id in calls:
            self._patience.discard(session_id)
        return [call for call in calls.values() if not call.closed]

    def fail(self, error: CallFailed) -> None:
        """End everybody who waits with ``error``, in words that Dify looks for."""
        text = error.message
        if NOT_FOUND not in text:
            text = f"{NOT_FOUND}: {text}"
        shown = type(error)(text, **error.details).as_json()
        for call in self.take():
            call.fail(shown)

    def close(self) -> None:
        """Give the timer back."""
        self._patience.close()

    def _leave(self, session_id: str) -> None:
        self._calls.pop(session_id, None)
        self._patience.discard(session_id)

    def _waited_too_long(self, session_id: str) -> None:
        call = self._calls.pop(session_id, None)
        if call is None or not isinstance(call.head, PluginHead):
            return
        error: CallFailed = Deadline(0.0, call.head.seconds, call.head.owner).error()
        if call.head.seconds > self._limit:
            error = PluginStartFailed(
                f"{NOT_FOUND}: {call.head.plugin} did not become ready within {self._limit:g} s "
                f"(TIDEGATE_START_LIMIT): {self._explain()}",
                limit=self._limit,
            )
        call.fail(error.as_json())
