"""Standard error of a plugin: drained always, its tail kept for error reports."""

from __future__ import annotations

from typing import Final, final

import gevent

from tidegate.clock import SYSTEM_CLOCK, Clock
from tidegate.environments import ReadEnd
from tidegate.hosts.plugin_log import PluginLog

#: What the pipe holds: one read takes all that is there.
_READ: Final = 64 << 10
_KEPT: Final = 64 << 10
#: A line without end is shown cut; the plugin's log would cut it there anyway.
_PARTIAL: Final = 8 << 10
#: What goes on without end is read at this rate, so that it does not take the host's time.
_RATE: Final = 12 << 20
#: What may come at once: a plugin on gevent stands still while it writes, all its calls with it.
_BURST: Final = 32 << 20


@final
class Allowance:
    """How much may be read before the reader has to rest: a bucket that fills at ``_RATE``."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._left = float(_BURST)
        self._counted_at = clock.monotonic()

    def spend(self, size: int) -> float:
        """Seconds to rest after a read of ``size`` bytes; 0 while the burst is not used up."""
        now = self._clock.monotonic()
        self._left = min(_BURST, self._left + (now - self._counted_at) * _RATE) - size
        self._counted_at = now
        return max(0.0, -self._left / _RATE)


@final
class StandardError:
    """Reads one pipe to its end in the one greenlet that runs :meth:`drain`."""

    def __init__(self, pipe: ReadEnd, log: PluginLog) -> None:
        self._pipe = pipe
        self._log = log
        self._tail = bytearray()
        self._partial = b""
        self._allowance = Allowance()
        self.bytes = 0

    def drain(self) -> None:
        """Read until the pipe ends, however much comes."""
        while data := self._pipe.read(_READ):
            self.bytes += len(data)
            self._tail += data
            if len(self._tail) > _KEPT:
                del self._tail[:-_KEPT]
            self._report(data)
            rest = self._allowance.spend(len(data))
            if rest or len(data) == _READ:
                gevent.sleep(rest)
        if self._partial:
            self._log.write("stderr", self._partial)

    def tail(self, lines: int, size: int) -> bytes:
        """The last ``lines`` lines of what it wrote, ``size`` bytes at most, whole if they fit."""
        kept = bytes(self._tail[-size:])
        cut = self.bytes > len(kept) and self._tail[-size - 1 : -size] != b"\n"
        found = kept.strip().splitlines()
        if cut and len(found) > 1:
            del found[0]  # the end of a line says less than nothing
        return b"\n".join(found[-lines:])

    def _report(self, data: bytes) -> None:
        # Before it is cut into lines: that is what a flood would cost us.
        if not self._log.room:
            self._log.drop(data.count(b"\n"))
            self._partial = b""
            return
        whole, _, rest = (self._partial + data).rpartition(b"\n")
        if whole:
            self._log.write("stderr", whole)
        self._partial = rest[:_PARTIAL]
