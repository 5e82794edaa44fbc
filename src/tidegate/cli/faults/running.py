"""One bad actor at work, beside streams and new calls on its own plugin and on another."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, final

from tidegate.cli.faults.actors import Actor
from tidegate.cli.faults.calling import CUT, ERROR, HUNG, OK, Outcome, Server

_EVERY: Final = 0.05
_PULSE: Final = 0.1
_LEAD: Final = 1.0
"""Seconds for which the bystanders stream before the deed."""


@final
@dataclass(slots=True)
class Group:
    """What the bystanders of one plugin saw."""

    streams: list[Outcome] = field(default_factory=list)
    calls: list[Outcome] = field(default_factory=list)

    def count(self, end: str) -> int:
        """Streams that ended so."""
        return sum(one.end == end for one in self.streams)

    @property
    def lost(self) -> int:
        """Chunks that never came, of all streams."""
        return sum(one.lost for one in self.streams)

    @property
    def whole(self) -> int:
        """Streams that ended well with every chunk."""
        return sum(one.end == OK and not one.lost for one in self.streams)

    @property
    def gap(self) -> float:
        """The longest silence of any stream, in seconds."""
        return max((one.gap for one in self.streams), default=0.0)

    @property
    def failed_calls(self) -> int:
        """New calls that were not served."""
        return sum(one.end != OK for one in self.calls)

    @property
    def slowest_call(self) -> float:
        """Seconds of the slowest new call."""
        return max((one.took for one in self.calls), default=0.0)


@final
@dataclass(slots=True)
class Seen:
    """One actor and what happened."""

    actor: Actor
    culprit: Outcome
    same: Group
    other: Group

    @property
    def faults(self) -> list[str]:
        """Whoever was hurt and should not have been; empty when all is as it should be."""
        found = []
        if self.culprit.end == HUNG:
            found.append("the culprit's call hung")
        for name, group, may_end in (
            ("same", self.same, self.actor.kills),
            ("other", self.other, False),
        ):
            if group.count(HUNG) or group.lost:
                found.append(f"{group.count(HUNG)} streams hung, {group.lost} chunks lost ({name})")
            if not may_end and group.whole < len(group.streams):
                found.append(f"{len(group.streams) - group.whole} streams not whole ({name})")
            if group.count(CUT):
                found.append(f"{group.count(CUT)} streams cut without a word ({name})")
            if group.failed_calls and not may_end:
                found.append(f"{group.failed_calls} new calls failed ({name})")
        return found

    @property
    def told(self) -> int:
        """Streams of the same plugin that ended with a typed error."""
        return self.same.count(ERROR)


@final
class Pack:
    """Plays actors, one at a time."""

    def __init__(
        self, server: Server, culprit: str, bystander: str, *, streams: int, seconds: float
    ) -> None:
        self._server = server
        self._plugins = (culprit, bystander)
        self._streams = streams
        self._seconds = seconds

    def play(self, actor: Actor) -> Seen:
        """Streams on both plugins, then the deed, then the sum."""
        groups = (Group(), Group())
        for plugin in self._plugins:  # both are up before anything is measured
            self._server.call(plugin, "pid", {})
        threads = [
            thread
            for plugin, group in zip(self._plugins, groups, strict=True)
            for thread in self._bystanders(plugin, group)
        ]
        for thread in threads:
            thread.start()
        time.sleep(min(_LEAD, self._seconds / 2))
        culprit = self._act(actor)
        for thread in threads:
            thread.join()
        return Seen(actor, culprit, *groups)

    def _act(self, actor: Actor) -> Outcome:
        call: tuple[Any, ...] = (self._plugins[0], actor.deed or "pid", actor.given)
        if actor.client == "call":
            return self._server.call(*call)
        return self._server.misbehave(actor.client, *call)

    def _bystanders(self, plugin: str, group: Group) -> list[threading.Thread]:
        given = {"count": int(self._seconds / _EVERY), "pause": _EVERY}

        def stream() -> None:
            group.streams.append(self._server.call(plugin, "tick", given))

        def pulse() -> None:
            ends_at = time.monotonic() + self._seconds
            while time.monotonic() < ends_at:
                began = time.monotonic()
                group.calls.append(self._server.call(plugin, "pid", {}))
                # At a fixed rate while calls are quick; one that hangs is counted once, not ten
                # times a second.
                time.sleep(max(0.0, _PULSE - (time.monotonic() - began)))

        jobs = [*[stream] * self._streams, pulse]
        return [threading.Thread(target=job, daemon=True) for job in jobs]
