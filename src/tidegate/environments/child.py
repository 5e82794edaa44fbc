"""Child processes of the host: how they are watched, killed and reaped (docs/adr/010).

Every child - uv, a plugin - is started by :mod:`spawning` and goes this one way:

* its end is seen through a pidfd on the hub's loop and collected by ``waitid`` on that pidfd.
  Never by gevent's subprocess, fork or posix_spawn (the patched one): they install a SIGCHLD
  handler that takes the exit codes of everybody's children,
* signals go to the process group, and only while the leader is not collected yet, so that a
  recycled number can never be hit. What is left of the group when the leader ends is killed,
* in a process namespace of its own a program has a keeper, process 1 in there, which is killed
  when the program ends: the kernel then ends all that is left in the namespace.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from gevent import get_hub, monkey
from gevent.event import Event

_READ: Final = 1
# gevent's own close waits for the hub; a descriptor without a watcher can be closed at once.
_close = monkey.get_original("os", "close")
_living: set[int] = set()
_keepers: dict[int, int] = {}
#: Numbers of children that are just making their namespaces. Written by ``spawning``.
DIVIDING: Final[set[int]] = set()


def children() -> frozenset[int]:
    """Process ids of all children of ``spawn`` that were not collected yet.

    What else is a child of a host was orphaned by one of these (hosts/care) - but while
    :func:`dividing`, when children are there whose numbers nobody knows yet.
    """
    return frozenset(_living)


def dividing() -> bool:
    """Whether a child is just making its namespaces, and others for it."""
    return bool(DIVIDING)


def keepers() -> dict[int, int]:
    """Process 1 of each namespace that lives: its number, and that of the program it is for.

    Whatever a plugin orphans in its namespace is a child of it (hosts/processes).
    """
    return dict(_keepers)


@final
@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with a code, or by a signal. Neither when somebody else took it."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is None:
            return "unknown exit code" if self.code is None else f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(self.signal).name}"
        except ValueError:
            return f"signal {self.signal}"


@final
class ReadEnd:
    """The reading end of a pipe, read by one greenlet. Close it when that greenlet is done."""

    __slots__ = ("_hub", "_watcher", "fd")

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._hub = get_hub()
        self._watcher: Any = self._hub.loop.io(fd, _READ)

    def read(self, size: int) -> bytes:
        """What is there, ``size`` bytes at most; waits for the first. Empty at the end."""
        while True:
            # Waits also where bytes are there: the others run between two reads of a flood.
            self._hub.wait(self._watcher)
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Give the descriptor back. Idempotent. Nobody may be in :meth:`read`."""
        if self.fd >= 0:
            self._watcher.close()
            fd, self.fd = self.fd, -1
            _close(fd)


@final
class Child:
    """A running process and the three pipes to it. Made by ``spawn``; ends exactly once.

    ``stdin`` is a writable descriptor, ``stdout`` and ``stderr`` are readable ones; whoever asked
    for the child wraps and closes them. OSError when there is no descriptor to watch it by.
    """

    def __init__(
        self, pid: int, stdin: int, stdout: int, stderr: int, keeper: Child | None = None
    ) -> None:
        # First of all: what cannot be watched must not be counted among the living, for then
        # nobody would ever collect it (hosts/care).
        self._pidfd = os.pidfd_open(pid)
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.exit: Exit | None = None
        self._keeper = keeper
        if keeper is not None:
            _keepers[keeper.pid] = pid
        self._gone = Event()
        self._on_exit: list[Callable[[], None]] = []
        _living.add(pid)
        loop = get_hub().loop
        self._watcher: Any = loop.io(self._pidfd, _READ)
        self._watcher.start(self._ended)
        self._reaper: Any = None
        if _sigchld_is_caught():
            # Not in a host; tests and tools may use gevent's subprocess in the same process.
            self._reaper = loop.child(pid, False)
            self._reaper.start(_nothing)

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the hub, once, when the process ended; it must not wait."""
        if self.exit is None:
            self._on_exit.append(callback)
        else:
            get_hub().loop.run_callback(callback)

    def wait(self, seconds: float | None = None) -> Exit | None:
        """How it ended; None when it has not within ``seconds``."""
        self._gone.wait(seconds)
        return self.exit

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group. Nothing when it has ended."""
        if self.exit is None:
            # PermissionError: all that is left of the group has another user, by a setuid program.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """End the whole process group now."""
        self.signal(signal.SIGKILL)

    def stop(self, grace: float) -> Exit | None:
        """Terminate, wait ``grace`` seconds, kill. Returns how it ended."""
        self.signal(signal.SIGTERM)
        if self.wait(grace) is None:
            self.kill()
        # Nobody survives SIGKILL but who waits for a disk or a network file system that is away.
        return self.wait(5.0)

    def _ended(self) -> None:
        # The leader is not collected yet, so its number - the group's - is still ours alone.
        self.signal(signal.SIGKILL)
        ended = self._collect()
        if ended is None:
            return
        if self._keeper is not None:
            # Process 1 of its namespace: whatever the program left in there ends with it.
            self._keeper.kill()
        _keepers.pop(self.pid, None)
        # A watcher goes before its descriptor: the number may be another file's at once.
        self._watcher.stop()
        self._watcher.close()
        _close(self._pidfd)
        self.exit = ended
        _living.discard(self.pid)
        self._gone.set()
        callbacks, self._on_exit = self._on_exit, []
        for callback in callbacks:
            callback()

    def _collect(self) -> Exit | None:
        reaper, self._reaper = self._reaper, None
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # libev was faster, where it catches SIGCHLD: what it saw is the only trace left.
            return _exit_of_status(reaper.rstatus) if reaper and reaper.rpid else Exit()
        finally:
            if reaper is not None:
                reaper.stop()
                reaper.close()
        if result is None:
            return None
        exited = result.si_code == os.CLD_EXITED
        return Exit(code=result.si_status) if exited else Exit(signal=result.si_status)


def _exit_of_status(status: int) -> Exit:
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status))
    return Exit(code=os.WEXITSTATUS(status))


def _sigchld_is_caught() -> bool:
    """Whether C code handles SIGCHLD: libev does once gevent's subprocess or fork was used."""
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGCHLD - 1) & 1)
    return False


def _nothing() -> None:
    """The watcher is read when the pidfd tells; it needs some callback."""


def discard(child: Child) -> None:
    """End a child that nobody will talk to, and close its pipes."""
    child.kill()
    for fd in {child.stdin, child.stdout, child.stderr} - {-1}:
        _close(fd)
