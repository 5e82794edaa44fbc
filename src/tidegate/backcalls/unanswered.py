"""The answer while nobody can answer: an error at once, so that no plugin waits for minutes."""

from __future__ import annotations

from typing import final

from tidegate.backcalls.target import Answer, BackCall
from tidegate.errors import NeedsDify


@final
class Unanswered:
    """Refuses every back-call in words that say what is missing."""

    def __init__(self, backcalls: str) -> None:
        self._backcalls = backcalls

    def invoke(self, call: BackCall, answer: Answer) -> None:
        """Fail ``call`` at once."""
        error = NeedsDify(
            f"back-calls of type {call.type} are not answered by this host "
            f"(TIDEGATE_BACKCALLS={self._backcalls})",
            call=call.type,
        )
        answer.fail(error.message)
