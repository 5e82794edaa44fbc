"""A plugin's process as back-calls see it, without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from gevent.event import Event

from tidegate.backcalls import BackCall, Caller, Session
from tidegate.deadline import Deadline

TENANT = "0198c5d2-0000-7000-8000-000000000001"
PLUGIN = f"acme/asker:0.0.1@{'a' * 64}"
ALL = {
    "tool": {"enabled": True},
    "model": dict.fromkeys(
        ("enabled", "llm", "text_embedding", "rerank", "tts", "speech2text", "moderation"), True
    ),
    "node": {"enabled": True},
    "app": {"enabled": True},
    "storage": {"enabled": True, "size": 1000},
}


@dataclass
class RecordedAnswer:
    """Follows ``backcalls.Answer``: keeps what the plugin would get."""

    pieces: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    error: str | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    ends: int = 0
    streamed: list[bool] = field(default_factory=list)
    on_abandoned: Callable[[], None] | None = None
    ended: Event = field(default_factory=Event)
    responded: Event = field(default_factory=Event)
    hold: Event | None = None

    def respond(self, data: bytes, *, stream: bool) -> None:
        if self.hold is not None:
            self.hold.wait()
        self.raw.append(data)
        self.pieces.append(json.loads(data))
        self.streamed.append(stream)
        self.responded.set()

    def fail(self, message: str, data: Mapping[str, Any]) -> None:
        self.error, self.typed = message, data

    def end(self) -> None:
        self.ends += 1
        self.ended.set()

    def refuse(self, message: str, data: Mapping[str, Any]) -> None:
        self.fail(message, data)
        self.end()

    def wait(self, seconds: float = 10.0) -> RecordedAnswer:
        """Until the end."""
        assert self.ended.wait(seconds), "the back-call was not ended"
        return self


@pytest.fixture
def caller() -> Caller:
    """A process whose manifest allows everything."""
    return Caller(PLUGIN, ALL)


def session(**changes: Any) -> Session:
    """An open session of a tool."""
    given = {
        "tenant": TENANT,
        "user": "u1",
        "type": "tool",
        "deadline": Deadline.after(30, "test"),
        **changes,
    }
    return Session(**given)


def back_call(
    caller: Caller,
    type: str,
    request: Mapping[str, Any] | bytes,
    *,
    of: Session | str | None = "open",
) -> BackCall:
    """A back-call of an open session; ``of=None`` of one that is over."""
    found = session() if isinstance(of, str) else of
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    return BackCall(caller, "11111111-2222-4333-8444-555555555555", found, "r1", type, text)
