"""The seam between a plugin's process and whoever answers its back-calls.

    hosts (reader of the process) --invoke--> Target --greenlet--> Responder --> Answer --> plugin

A back-call belongs to a session and ends with it at the latest: when the session is over, the
host abandons the answer, which ends it for the plugin and stops the greenlet that works on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from gevent.lock import BoundedSemaphore

from tidegate.backcalls.kinds import Kind
from tidegate.deadline import Deadline
from tidegate.telemetry.sparing import Sparing


@final
@dataclass(frozen=True, slots=True)
class Session:
    """The session that a back-call belongs to. ``type`` is its access type (``tool``, ``model``).

    ``depth`` counts the back-calls above it, ``trace`` is the caller's ``traceparent`` or empty.
    """

    tenant: str
    user: str
    type: str
    deadline: Deadline
    trace: str = ""
    depth: int = 0


@final
@dataclass(slots=True, eq=False)
class Caller:
    """One running plugin process, as back-calls see it. Made by its instance, kept by it.

    ``permission`` is that of its manifest (``resource.permission``). The lanes are the target's:
    back-calls that run at once, counted per depth so that a nested one never waits for its own;
    so are the counts of those that wait and of the bytes of all.
    """

    plugin: str
    permission: Mapping[str, Any]
    # Here and not with the target: they go with the process, and a new one begins at zero.
    lanes: dict[int, BoundedSemaphore] = field(default_factory=dict)
    waiting: int = 0
    held: int = 0
    #: For what it can make the log say by itself.
    sparing: Sparing = field(default_factory=Sparing)


@final
@dataclass(frozen=True, slots=True)
class BackCall:
    """One question of a plugin.

    ``type`` is what it asks for (``llm``, ``tool``, ``storage`` …), ``request`` its fields as
    JSON bytes. ``session`` is None when the session that it names is over, or was never its.
    """

    caller: Caller
    session_id: str
    session: Session | None
    request_id: str
    type: str
    request: bytes = field(repr=False)  # may be long, and hold secrets


class Answer(Protocol):
    """Takes the answer to one back-call; made by the instance. Any method may come too late.

    ``on_abandoned`` is set by the target; the host calls it at most once, when the session is
    over before the end came. Then the plugin has been told already.
    """

    on_abandoned: Callable[[], None] | None

    def respond(self, data: bytes, *, stream: bool) -> None:
        """One piece of the answer: a JSON object on one line.

        Waits while the plugin does not read. Called by the back-call's own greenlet.
        """

    def fail(self, message: str, data: Mapping[str, Any]) -> None:
        """The plugin raises this text; ``data`` types it. May wait as :meth:`respond`."""

    def end(self) -> None:
        """Nothing follows. The plugin waits for it, after pieces as after none. May wait."""

    def refuse(self, message: str, data: Mapping[str, Any]) -> None:
        """Error and end at once, without waiting. For the reader of the plugin's process."""


class Target(Protocol):
    """Who answers back-calls. Given to the host by its entry file."""

    def invoke(self, call: BackCall, answer: Answer) -> None:
        """Answer ``call``. Runs in the reader of the plugin's process: never waits, never raises;
        what takes time is done in a greenlet of the target's own."""

    def close(self) -> None:
        """Give back connections and greenlets. Called when the host stops."""


class Responder(Protocol):
    """Answers the back-calls of some types: Dify, Tidegate itself, the plugin storage."""

    def respond(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> None:
        """Give ``answer`` its pieces. Runs in a greenlet of this back-call; CallFailed when it
        cannot, killed when the session is over. The end is told by the caller."""

    def close(self) -> None:
        """Give back what it holds."""
