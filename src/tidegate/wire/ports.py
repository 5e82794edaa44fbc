"""Who gets what a plugin says: a session's output its port, all else the listener.

Implemented by the rooms that have a caller, a log and answers to back-calls; ``sessions`` calls
them from the one reader of a connection, where nothing may wait.
"""

from __future__ import annotations

from typing import Protocol


class Port(Protocol):
    """Where a session's output goes: the link's ServerCall has this shape."""

    #: Chunks, as bytes or as msgspec.Raw: views of their lines, for a copy costs a fifth of all.
    buffer: list[bytes]
    closed: bool

    def conclude(self, error: bytes = b"") -> None:
        """End the call at the next flush; empty is a normal end."""


class Listener(Protocol):
    """What a plugin says apart from its answers. Called from ``Sessions.receive``."""

    def heartbeat(self) -> None:
        """A heartbeat; the first one means ready."""

    def log(self, level: str, message: str) -> None:
        """A log line, or an error event."""

    def noise(self, text: bytes) -> None:
        """Text on standard output that is no message: ``print()``, a banner, raw bytes."""

    def dropped(self, lines: int) -> None:
        """So many more texts that are no message came, in a flood that nobody can read."""

    def invoke(self, session_id: str, request: bytes) -> None:
        """A back-call: JSON ``{type, backwards_request_id, request}``. The session may be over."""
