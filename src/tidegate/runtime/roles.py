"""One supervised role: its process, its output, its deaths. Used by ``supervise`` only.

States: DOWN -> STARTING -> READY -> DOWN, any -> GONE (gave up, or told to stop).

This runs in the supervisor, a plain Python process without gevent and without threads: a role is
started with ``preexec_fn`` (safe in a process with one thread) in a process group of its own, and
the kernel sends it SIGTERM when the supervisor dies, so that nothing outlives ``tidegate up``.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, final

from tidegate.runtime.home import write_whole
from tidegate.runtime.readiness import readiness
from tidegate.settings import Settings

#: A role that lived this long has shown that it works: its deaths are counted anew.
HEALTHY_AFTER = 60.0
#: Deaths in a row after which the supervisor gives up.
DEATHS = 5
_LOG_LIMIT = 20 << 20
_LOG_KEPT = 5
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class State(enum.Enum):
    """See the module's line of states."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    GONE = "gone"


@final
class RoleLog:
    """``logs/<role>.log``, 20 MiB and four older ones; and the terminal, with the role's name.

    ``last`` is why it ended, as far as it said so: our own refusal, which Gunicorn follows with
    lines of its own, else the last line that says something.
    """

    def __init__(self, path: Path, name: str, *, quiet: bool) -> None:
        self.last = ""
        self._path = path
        self._quiet = quiet
        self._prefix = f"{name:<6} | ".encode()
        # Unbuffered: what a full disk did not take must not be tried again and again.
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._rest = b""
        self._broken = False

    def write(self, data: bytes) -> None:
        """Take what the role wrote; shows whole lines only. Never raises for the disk's sake."""
        try:
            self._file.write(data)
            if self._file.tell() > _LOG_LIMIT:
                self._rotate()
            self._broken = False
        except OSError as error:
            # A disk that is full costs lines of a log; it must not end the four roles.
            if not self._broken:
                show(self._prefix + f"(not in {self._path}: {error})\n".encode())
            self._broken = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._note(line.decode("utf-8", "replace").strip())
        if lines and not self._quiet:
            show(b"".join(self._prefix + line + b"\n" for line in lines))

    def begin(self) -> None:
        """A new process writes: what the one before said is no reason any more."""
        self.last = ""

    def _note(self, line: str) -> None:
        if line.startswith("tidegate: ") and line.endswith("waits through gevent"):
            return  # the third-party patches, said by every role
        if line and (line.startswith("tidegate: ") or not self.last.startswith("tidegate: ")):
            self.last = line

    def close(self) -> None:
        """Show what is left of a line and close the file."""
        if self._rest and not self._quiet:
            show(self._prefix + self._rest + b"\n")
        self._file.close()

    def _rotate(self) -> None:
        # Not closed before the new one is open: a rename that fails leaves the old one to write.
        old = self._file
        for number in range(_LOG_KEPT - 1, 0, -1):
            older = self._path.with_suffix(f".log.{number}")
            if older.exists():
                older.replace(self._path.with_suffix(f".log.{number + 1}"))
        self._path.replace(self._path.with_suffix(".log.1"))
        self._file = self._path.open("ab", buffering=0)
        old.close()


def show(data: bytes) -> None:
    """Write to the terminal; nothing where that is gone, or only its reader."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except (OSError, ValueError):
        return  # the roles are worth more than a word about them, and files have it


@final
class Role:
    """A role that is kept running. Made, polled and stopped by the supervisor's one loop."""

    def __init__(
        self,
        name: str,
        command: list[str],
        settings: Settings,
        environ: Mapping[str, str],
        *,
        quiet: bool = False,
    ) -> None:
        self.name = name
        self.state = State.DOWN
        self.deaths = 0
        self.was_ready = False
        self.starts_at = 0.0
        self._command = command
        self._settings = settings
        self._environ = environ
        self._log = RoleLog(settings.home.logs / f"{name}.log", name, quiet=quiet)
        self._started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._readiness = readiness(name, settings)

    @property
    def pid(self) -> int:
        """Pid of the running process; 0 when there is none."""
        return self._process.pid if self._process else 0

    @property
    def output(self) -> BinaryIO | None:
        """What the supervisor's selector waits on."""
        return self._process.stdout if self._process else None  # type: ignore[return-value]

    def start(self, now: float) -> None:
        """Start the process. OSError when the program is not there."""
        self._log.begin()
        self._process = subprocess.Popen(
            self._command,
            env=dict(self._environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=_die_with_parent(os.getpid()),
        )
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        os.set_blocking(self._process.stdout.fileno(), False)
        self.state, self._started_at = State.STARTING, now
        # For people; the roles find each other by sockets and fingerprints.
        with contextlib.suppress(OSError):
            write_whole(self._pid_file, f"{self.pid}\n".encode(), mode=0o644)

    def read(self) -> bool:
        """Take what the process wrote. False at the end of its output."""
        assert self.output is not None  # noqa: S101 - only called by the selector
        data = os.read(self.output.fileno(), 1 << 16)
        if data:
            self._log.write(data)
        return bool(data)

    def check_ready(self) -> bool:
        """Ask a starting role whether it serves. True once, when it begins to."""
        if self.state is not State.STARTING or not self._readiness.ask(self.pid):
            return False
        self.state, self.was_ready = State.READY, True
        return True

    def ended(self, now: float) -> int | None:
        """Exit code if the process has ended since the last call (negative: by a signal)."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._sweep()
        self.deaths = 1 if now - self._started_at > HEALTHY_AFTER else self.deaths + 1
        self.state = State.DOWN
        return code

    def signal(self, number: int) -> None:
        """Send a signal to the role's first process; it tells its own."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the whole process group and reap it."""
        if self._process is not None:
            _kill_group(self._process.pid)
            self._process.wait()
            self._sweep()

    def close(self) -> None:
        """Nothing more is started. Called when the supervisor ends."""
        self.state = State.GONE
        self._log.close()

    @property
    def last_line(self) -> str:
        """The last thing that the role said."""
        return self._log.last

    @property
    def started_at(self) -> float:
        """When the running process was started (monotonic)."""
        return self._started_at

    @property
    def _pid_file(self) -> Path:
        return self._settings.home.run / f"{self.name}.pid"

    def _sweep(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._readiness.forget()
        # What it left would hold its port and its output, and the next one could not start.
        _kill_group(process.pid)
        if process.stdout is not None:
            self._drain(process.stdout)  # type: ignore[arg-type]
        self._pid_file.unlink(missing_ok=True)

    def _drain(self, output: BinaryIO) -> None:
        try:
            while data := os.read(output.fileno(), 1 << 16):
                self._log.write(data)
        except BlockingIOError:
            pass  # somebody outside of the group still holds the pipe
        output.close()


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # died before prctl was called
            os._exit(1)

    return prepare


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
