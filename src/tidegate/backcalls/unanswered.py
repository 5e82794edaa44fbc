"""The answer where nobody can answer: an error at once, so that no plugin waits for minutes."""

from __future__ import annotations

from typing import final

from tidegate.backcalls.kinds import Kind
from tidegate.backcalls.target import Answer, BackCall, Session
from tidegate.errors import NeedsDify


@final
class Unanswered:
    """Refuses every back-call in words that say what is missing. A Responder."""

    def __init__(self, backcalls: str) -> None:
        self._backcalls = backcalls

    def respond(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> None:
        """Always NeedsDify."""
        raise needs_dify(kind, self._backcalls)

    def close(self) -> None:
        """Holds nothing."""


def needs_dify(kind: Kind, backcalls: str) -> NeedsDify:
    """The error for a back-call that this host does not answer."""
    return NeedsDify(
        f"{kind.failed}back-calls of type {kind.type} are not answered by this host "
        f"(TIDEGATE_BACKCALLS={backcalls}): they need Dify, see DIFY_INNER_API_URL",
        call=kind.type,
    )
