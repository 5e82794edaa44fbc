"""The log of one plugin: what it prints, logs and writes to standard error.

``logs/plugins/<author>/<name>.log``, rotated, and limited in lines per second: a plugin that
floods costs itself lines of its log, and nobody anything else. Trouble with the disk is counted
and never raised.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, final

from gevent import monkey

from tidegate.clock import SYSTEM_CLOCK

_SIZE: Final = 5 << 20
_KEPT: Final = 3
_LINE: Final = 8 << 10
_PER_SECOND: Final = 200.0
_BURST: Final = 1000.0
#: After a flood lines are written again from here on, so that they do not trickle one by one.
_RESUME: Final = 50.0
# What would move a reader's cursor or colour the terminal; tab is harmless.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
#: How they are shown. A table: calling a function for each takes ms for a line made of them.
_SHOWN: Final = {
    code: f"\\x{code:02x}" for code in (*range(0xA0), 0x2028, 0x2029) if _CONTROL.match(chr(code))
}
# gevent's own close waits for the hub; this descriptor has no watcher.
_close = monkey.get_original("os", "close")


@final
class PluginLog:
    """Appends lines to a plugin's log file. Opened at the first line; :meth:`close` ends it.

    One per plugin, written by the greenlets of its processes; nothing here waits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        self._tokens = _BURST
        self._filled_at = SYSTEM_CLOCK.monotonic()
        self._flooded = False
        self.dropped = 0
        self.failures = 0

    def write(self, source: str, text: bytes | str) -> None:
        """One or more lines from ``source`` (``stdout``, ``stderr``, ``info`` …)."""
        # A log message of a plugin may have 30 MB: cut before it is looked at, not line by line.
        text = text[: _LINE * 16]
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        if not self.room:
            self.dropped += text.count("\n") + (not text.endswith("\n"))
            return
        # A carriage return ends a line as well: one text may be sixty thousand of them.
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if line.strip() and not self._line(source, line):
                self.dropped += len(lines) - number - 1
                return

    @property
    def room(self) -> bool:
        """Whether a line would be written now. Lets a reader skip work for a flood."""
        self._refill()
        self._flooded = self._tokens < (_RESUME if self._flooded else 1.0)
        return not self._flooded

    def drop(self, lines: int) -> None:
        """Count lines that were not even offered."""
        self.dropped += lines

    def close(self) -> None:
        """Give the file back. The next line opens it again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _close(fd)

    def _line(self, source: str, line: str) -> bool:
        """Write one; False, and counted, when there is no room."""
        if not self.room:
            self.dropped += 1
            return False
        self._tokens -= 1.0
        if self.dropped:
            missing, self.dropped = self.dropped, 0
            self._append("log", f"{missing} lines dropped: more than {_PER_SECOND:g} a second")
        self._append(source, line)
        return True

    def _append(self, source: str, line: str) -> None:
        clean = line[:_LINE]
        if _CONTROL.search(clean):
            clean = clean.translate(_SHOWN)
        when = SYSTEM_CLOCK.now().isoformat(timespec="milliseconds")
        data = f"{when} {source} {clean}\n".encode("utf-8", "backslashreplace")
        try:
            self._open()
            os.write(self._fd, data)
        except OSError:
            self.failures += 1  # a full disk must not cost the plugin's calls
            return
        # Counted, not asked for: a stat per line costs as much as writing it.
        self._size += len(data)
        if self._size >= _SIZE:
            self._rotate()

    def _refill(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        gained = (now - self._filled_at) * _PER_SECOND
        self._filled_at = now
        self._tokens = min(_BURST, self._tokens + gained)

    def _open(self) -> None:
        if self._fd < 0:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        try:
            for number in range(_KEPT - 1, 0, -1):
                older = self._path.with_name(f"{self._path.name}.{number}")
                if older.exists():
                    older.rename(self._path.with_name(f"{self._path.name}.{number + 1}"))
            self._path.rename(self._path.with_name(f"{self._path.name}.1"))
        except OSError:
            self.failures += 1
