"""Lines of a plugin's standard output: cut, bounded, without I/O (spec/plugin/01 section 1).

A line that is longer than the limit is not held: its first bytes are kept, because they name
the session that it belonged to, the rest is thrown away up to its newline. So a
plugin that writes without end costs ``limit`` bytes of memory and one call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

#: How much of an oversized line is kept: enough for the envelope around its payload. A function
#: knows its session by a signed id, which brings the place of a host along (hosts/serverless).
HEAD_KEPT: Final = 2048
_SESSION_ID = re.compile(rb'"session_id"\s*:\s*"([^"\\]{1,1024})"')


@final
@dataclass(frozen=True, slots=True)
class OversizedLine:
    """A line that is thrown away: its first bytes, and its length when that was noticed."""

    head: bytes
    size: int

    @property
    def session_id(self) -> str | None:
        """The session named in the kept bytes, if any."""
        match = _SESSION_ID.search(self.head)
        return match[1].decode("utf-8", "replace") if match else None


def sift(block: bytes, word: bytes, others: Callable[[bytes], None]) -> list[bytes]:
    """The lines of a block that have ``word`` in them; ``others`` gets what is between, uncut."""
    found = []
    at = 0
    while (seen := block.find(word, at)) >= 0:
        start = block.rfind(b"\n", at, seen) + 1 or at
        end = block.find(b"\n", seen)
        end = len(block) if end < 0 else end
        others(block[at:start])
        found.append(block[start:end])
        at = end + 1
    others(block[at:])
    return found


@final
class LineSplitter:
    """Cuts what a process writes into lines. One per pipe, fed by its one reader.

    ``feed`` gives the whole lines without their newlines (blank ones included: the caller skips
    them in the loop it has anyway). In the place of a line over the limit stands an
    :class:`OversizedLine`, as soon as the limit is passed.
    """

    __slots__ = ("_discarding", "_held", "_rest", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rest: list[bytes] = []
        self._held = 0
        self._discarding = False

    def feed(self, data: bytes) -> list[bytes | OversizedLine]:
        """Every line that ended, or grew over the limit, in ``data``."""
        block, over = self.take(data)
        return over if block is None else self.cut(block) + over

    def take(self, data: bytes) -> tuple[bytes | None, list[bytes | OversizedLine]]:
        """The same, uncut: lines in one block (None when no line ended), and what comes after."""
        if self._discarding:
            end = data.find(b"\n")
            if end < 0:
                return None, []
            self._discarding = False
            data = data[end + 1 :]
        cut = data.rfind(b"\n")
        if cut < 0:
            return None, self._hold(data)
        if self._rest:
            self._rest.append(data[:cut])
            block = b"".join(self._rest)
            self._rest = []
            self._held = 0
        else:
            block = data[:cut]
        return block, self._hold(data[cut + 1 :])

    def cut(self, block: bytes) -> list[bytes | OversizedLine]:
        """The lines of a block."""
        lines: list[bytes | OversizedLine] = block.split(b"\n")  # type: ignore[assignment]
        if len(block) > self.limit:
            lines = [self.checked(line) for line in lines]
        return lines

    @property
    def partial(self) -> bytes:
        """What was written after the last newline and is held."""
        return b"".join(self._rest)

    def _hold(self, data: bytes) -> list[bytes | OversizedLine]:
        if not data:
            return []
        self._rest.append(data)
        self._held += len(data)
        if self._held <= self.limit:
            return []
        line = OversizedLine(b"".join(self._rest)[:HEAD_KEPT], self._held)
        self._rest = []
        self._held = 0
        self._discarding = True
        return [line]

    def checked(self, line: bytes | OversizedLine) -> bytes | OversizedLine:
        """The line, or what stands in the place of one over the limit."""
        if isinstance(line, bytes) and len(line) > self.limit:
            return OversizedLine(line[:HEAD_KEPT], len(line))
        return line
