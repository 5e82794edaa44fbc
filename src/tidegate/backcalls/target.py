"""The seam between a plugin's process and whoever answers its back-calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final


@final
@dataclass(frozen=True, slots=True)
class BackCall:
    """One question of a plugin.

    ``type`` is what it asks for (``llm``, ``tool``, ``storage`` …), ``request`` its fields as
    JSON bytes. ``tenant`` is that of the session it belongs to, None when that session is over.
    """

    plugin: str
    session_id: str
    tenant: str | None
    request_id: str
    type: str
    request: bytes


class Answer(Protocol):
    """Takes the answer to one back-call; made by the instance. Any method may come too late."""

    def respond(self, data: bytes) -> None:
        """One piece of the answer: a JSON object in bytes."""

    def fail(self, message: str) -> None:
        """The plugin raises this text. The end follows by itself."""

    def end(self) -> None:
        """Nothing follows. The plugin waits for it, after pieces as after none."""


class Target(Protocol):
    """Who answers back-calls. Given to the host by its entry file."""

    def invoke(self, call: BackCall, answer: Answer) -> None:
        """Answer ``call``. Runs in the reader of the plugin's process: never waits, never raises;
        what takes time is done in a greenlet of the target's own."""
