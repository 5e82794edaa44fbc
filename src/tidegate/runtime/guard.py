"""The process above the host: nothing of the host outlives it, and its environment is empty.

    python -I -S guard.py PROGRAM ARGUMENT...

    guard ── host ── plugins ── what they started        guard, host: PR_SET_CHILD_SUBREAPER

* The environment that it was given, with its keys and passwords, goes to PROGRAM through a
  memory file, and guard and PROGRAM run with a bare one: a plugin of the same user that reads
  ``/proc/<pid>/environ`` finds nothing (:func:`enter` takes the variables up again).
* When PROGRAM has ended, however it did, everything that it left comes here, the nearest
  subreaper, and is killed: plugins die with the host by PR_SET_PDEATHSIG, but what they started
  has nobody who would tell it, whatever its group, session and environment.
* Signals go on to PROGRAM, its exit status comes back. It dies when the guard dies.

A plain Python process without gevent or packages: some 9 MB of which most is shared.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping

#: Variables that tell PROGRAM where the others are, and whose child it must be.
_FILE = "TIDEGATE_GUARD_ENVIRON"
_PARENT = "TIDEGATE_GUARD_PID"
_KEPT = (
    "HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
    "VIRTUAL_ENV",
)  # fmt: skip
_KEPT_TOO = ("COVERAGE_", "GEVENT_", "LC_", "PYTHON")
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_ROUNDS = 200


def main(command: list[str]) -> None:
    """Run ``command`` under guard; ends as it ends. Does not return."""
    if _FILE not in os.environ:
        # Once, by becoming itself anew: the old environment stays readable in /proc as long as the
        # process lives.
        _put_away(command)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signals = set(_FORWARDED) | {signal.SIGCHLD}
    # Before the child is there: one that ends at once, or a signal in between, is waiting then.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    environ = {**os.environ, _PARENT: str(os.getpid())}
    child = os.posix_spawn(command[0], command, environ, setsigmask=[])
    # The child has it; kept here, the secrets would be readable through /proc/<guard>/fd.
    os.close(int(os.environ[_FILE]))
    status = _wait_for(child, signals)
    _kill_what_is_left()
    _end_as(status)


def enter() -> None:
    """Called by PROGRAM first: take the variables up, and die with the guard.

    Without a guard (a debugger starts PROGRAM itself) only the orphans of plugins are adopted.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    parent = os.environ.pop(_PARENT, "")
    file = os.environ.pop(_FILE, "")
    if file:
        os.environ.update(_take_up(int(file)))
    if parent:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # It died before prctl was called, and never sends the signal.
        if os.getppid() != int(parent):
            os._exit(1)


def hide_memory() -> None:
    """Nobody of the same user but root may look into this process or attach to it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def bare(environ: Mapping[str, str]) -> dict[str, str]:
    """What Python itself and its libraries need of an environment."""
    return {
        name: value
        for name, value in environ.items()
        if name in _KEPT or name.startswith(_KEPT_TOO)
    }


def _put_away(command: list[str]) -> None:
    """Move the environment to a memory file and start this program anew without it."""
    file = os.memfd_create("environ", 0)
    data = b"\0".join(os.fsencode(f"{name}={value}") for name, value in os.environ.items())
    os.write(file, data)
    environ = {**bare(os.environ), _FILE: str(file)}
    words = [sys.executable, "-I", "-S", os.path.abspath(__file__), *command]
    os.execve(sys.executable, words, environ)  # noqa: S606 - this very program again


def _take_up(file: int) -> dict[str, str]:
    size = os.lseek(file, 0, os.SEEK_END)
    text = os.pread(file, size, 0)
    os.close(file)
    pairs = (os.fsdecode(one).partition("=") for one in text.split(b"\0") if one)
    return {name: value for name, _, value in pairs}


def _wait_for(child: int, signals: set[signal.Signals]) -> int:
    """Pass signals on until ``child`` has ended; collect everybody else. Its wait status."""
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        while True:
            try:
                # All that have ended: several deaths may be one SIGCHLD. This process has no other
                # code that waits.
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                return status
            if pid == 0:
                break


def _kill_what_is_left() -> None:
    """Kill and collect all children until there are none: what they leave comes here as well."""
    for _ in range(_ROUNDS):
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = [int(pid) for pid in file.read().split()]
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _end_as(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # As PROGRAM ended: whoever watches the guard reads the same status.
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
