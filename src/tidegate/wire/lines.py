"""Lines of a plugin's standard output: cut, bounded, without I/O (spec/plugin/01 section 1).

A line that is longer than the limit is never held: its first bytes are kept, because they name
the session that it belonged to, the rest is counted and thrown away up to its newline. So a
plugin that writes without end costs ``limit`` bytes of memory and one call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

#: How much of an oversized line is kept: enough for the envelope around its payload.
HEAD_KEPT: Final = 1024
_SESSION_ID = re.compile(rb'"session_id"\s*:\s*"([^"\\]{1,128})"')


@final
@dataclass(frozen=True, slots=True)
class OversizedLine:
    """A line that was thrown away: its first bytes and its whole length."""

    head: bytes
    size: int

    @property
    def session_id(self) -> str | None:
        """The session named in the kept bytes, if any."""
        match = _SESSION_ID.search(self.head)
        return match[1].decode("utf-8", "replace") if match else None


@final
class LineSplitter:
    """Cuts what a process writes into lines. One per pipe, fed by its one reader.

    ``feed`` gives the whole lines without their newlines (blank ones included: the caller skips
    them in the loop it has anyway). Lines over the limit are in ``take_oversized`` instead.
    """

    __slots__ = ("_discarded", "_head", "_held", "_oversized", "_rest", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rest: list[bytes] = []
        self._held = 0
        self._head = b""
        self._discarded = 0
        self._oversized: list[OversizedLine] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Every line that ended in ``data``."""
        cut = data.rfind(b"\n")
        if cut < 0:
            self._hold(data)
            return []
        if self._discarded:
            data, cut = self._end_discarding(data)
            if cut < 0:
                return []
        if self._rest:
            self._rest.append(data[:cut])
            block = b"".join(self._rest)
            self._rest = []
            self._held = 0
        else:
            block = data[:cut]
        if cut + 1 < len(data):
            self._hold(data[cut + 1 :])
        lines = block.split(b"\n")
        if len(block) > self.limit:
            lines = self._drop_oversized(lines)
        return lines

    def take_oversized(self) -> list[OversizedLine]:
        """The lines thrown away since the last call."""
        if not self._oversized:
            return []
        taken, self._oversized = self._oversized, []
        return taken

    @property
    def partial(self) -> bytes:
        """What was written after the last newline (its head, when it is being thrown away)."""
        return self._head if self._discarded else b"".join(self._rest)

    def _hold(self, data: bytes) -> None:
        if self._discarded:
            self._discarded += len(data)
            return
        self._rest.append(data)
        self._held += len(data)
        if self._held > self.limit:
            self._head = b"".join(self._rest)[:HEAD_KEPT]
            self._discarded = self._held
            self._rest = []
            self._held = 0

    def _end_discarding(self, data: bytes) -> tuple[bytes, int]:
        end = data.find(b"\n")
        self._oversized.append(OversizedLine(self._head, self._discarded + end))
        self._discarded = 0
        self._head = b""
        rest = data[end + 1 :]
        cut = rest.rfind(b"\n")
        if cut < 0 and rest:
            self._hold(rest)
        return rest, cut

    def _drop_oversized(self, lines: list[bytes]) -> list[bytes]:
        kept: list[bytes] = []
        for line in lines:
            if len(line) > self.limit:
                self._oversized.append(OversizedLine(line[:HEAD_KEPT], len(line)))
            else:
                kept.append(line)
        return kept
