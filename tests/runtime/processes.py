"""Real programs under test: started, read, waited for, never left behind.

Not with ``subprocess``: gevent's takes exit codes from the plugins that other tests of the same
pytest process wait for. posix_spawn, a pidfd and one reader greenlet do all that is needed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.socket import wait_read

from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HERE = Path(__file__).resolve().parent

_spawn = monkey.get_original("os", "posix_spawn")
_close = monkey.get_original("os", "close")


class Program:
    """One running program and everything that it printed (both streams, in order)."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], cwd: Path = ROOT) -> None:
        self.argv = [str(word) for word in argv]
        self.text = ""
        self.code: int | None = None
        self._news = Event()
        self._pipe, theirs = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)]
        actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
        shell = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(cwd), *self.argv]
        self.started = self.ended = time.monotonic()
        self.pid = _spawn(shell[0], shell, dict(environ), file_actions=actions, setsid=True)
        _close(theirs)
        self._pidfd = os.pidfd_open(self.pid)
        os.set_blocking(self._pipe, False)
        self._reader = gevent.spawn(self._read)

    def wait_for(self, pattern: str, timeout: float = 15.0) -> re.Match[str]:
        """The first place where the output matches; fails with the output when it does not come."""
        with gevent.Timeout(timeout, self._failure(f"never said {pattern!r}")):
            while (found := re.search(pattern, self.text, re.MULTILINE)) is None:
                if self._reader.dead:
                    raise self._failure(f"ended without {pattern!r}")
                self._news.wait()
                self._news.clear()
        return found

    def fingerprint(self, timeout: float = 15.0) -> dict[str, Any]:
        """The fingerprint line of the (first) role that this program started."""
        line = self.wait_for(r'^.*(\{"event": "fingerprint".*\})$', timeout)
        fields: dict[str, Any] = json.loads(line[1])
        del fields["event"]
        return fields

    def wait(self, timeout: float = 10.0) -> int:
        """Exit code (negative: the signal), once all output is read."""
        with gevent.Timeout(timeout, self._failure(f"still runs after {timeout:g} s")):
            if self.code is None:
                wait_read(self._pidfd)
                self._reap()
            self._reader.join()
        assert self.code is not None
        return self.code

    def kill(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the program itself, not to what it started."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """Kill what is left of its session's process group, reap, close. Once is enough."""
        if self._pipe < 0:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.code is None:
            wait_read(self._pidfd)
            self._reap()
        self._reader.kill()
        for descriptor in (self._pipe, self._pidfd):
            _close(descriptor)
        self._pipe = -1

    def took_less_than(self, seconds: float) -> bool:
        """Whether it ended in time, on a machine that others use at the same time."""
        return self.ended - self.started < patience(seconds)

    def _reap(self) -> None:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert result is not None
        self.ended = time.monotonic()
        exited = result.si_code == os.CLD_EXITED
        self.code = result.si_status if exited else -result.si_status

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                wait_read(self._pipe)
                continue
            if not data:
                break
            self.text += data.decode("utf-8", "replace")
            self._news.set()
        self._news.set()

    def _failure(self, what: str) -> AssertionError:
        return _Lazy(lambda: f"{' '.join(self.argv)} {what}; it printed:\n{self.text}")


class _Lazy(AssertionError):
    """The output is that of the moment when the assertion is shown."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__()
        self._text = text

    def __str__(self) -> str:
        return self._text()


def tree(pid: int) -> list[int]:
    """Pids of all descendants of ``pid``."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            found += [child, *tree(child)]
    return found


def runs(pid: int) -> bool:
    """Whether a process runs, and is not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: Iterable[int], seconds: float = 2.0) -> bool:
    """Whether none of the processes runs within ``seconds``. Who adopts orphans may be slow."""
    left = list(pids)
    end = time.monotonic() + patience(seconds)
    while any(map(runs, left)):
        if time.monotonic() > end:
            return False
        gevent.sleep(0.01)
    return True
