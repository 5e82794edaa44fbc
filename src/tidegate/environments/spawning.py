"""How the host starts a child: any program, behind whatever stands around it (docs/adr/010).

``posix_spawn`` of the trampoline, which takes its own session and process group, limits, working
directory, user and view of the file system, and becomes the program; it dies when the host dies.
Not ``fork``: a host of gigabytes would be copied page table by page table, and what a fork of a
process with threads may do before its exec is next to nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import gevent
from gevent import monkey

from tidegate.environments.child import DIVIDING, Child, ReadEnd, discard

_TRAMPOLINE: Final = str(Path(__file__).with_name("trampoline.py"))
# gevent's own close waits for the hub; a descriptor without a watcher can be closed at once.
_close = monkey.get_original("os", "close")
# gevent's own installs a SIGCHLD handler that collects everybody's children.
_posix_spawn = monkey.get_original("os", "posix_spawn")
#: Seconds in which the trampoline makes its namespaces; a dead network disk may hold it up.
_DIVIDE_LIMIT: Final = 10.0


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    limits: Mapping[str, int] | None = None,
    view: Sequence[str] = (),
    input_size: int = 0,
    merge: bool = False,
) -> Child:
    """Start ``command`` (its first word is an absolute path) in ``folder``.

    It sees ``environment`` and nothing else. ``limits`` are rlimits by their short names
    (``nofile``, ``as``), and ``uid`` for another user; ``view`` are lines of the trampoline's
    language: what of the file system it sees. The pipe to it holds ``input_size`` bytes where that
    can be had (0: what pipes hold). With ``merge``, standard error goes where standard
    output goes, and ``Child.stderr`` is -1. OSError when no process or pipe can be had. Must be
    called from the main thread: the parent-death signal is bound to the thread that starts the
    child. Waits, some milliseconds, for a child with namespaces of its own.
    """
    divided = any(line.startswith("n ") for line in view)
    # Standard input, output, error unless merged, and the report of namespaces.
    pipes: list[_Pipe] = []
    try:
        for size in (input_size, *([0] * ((1 if merge else 2) + divided))):
            pipes.append(_pipe(size))
        stdin, stdout, stderr = pipes[0], pipes[1], pipes[1 if merge else 2]
        inner = [stdin.read, stdout.write, stderr.write]
        inner += [pipes[-1].write] if divided else []
        pid = _start(command, folder, environment, limits or {}, view, inner)
    except BaseException:
        for fd in chain(*pipes):
            _close(fd)
        raise
    for fd in set(inner):
        _close(fd)
    ends = (stdin.write, stdout.read, -1 if merge else stderr.read)
    report = pipes[-1].read if divided else -1
    try:
        first = Child(pid, *ends)
    except BaseException:
        _end([pid], (*ends, report))
        raise
    return _divided(first, report) if divided else first


def _divided(first: Child, report: int) -> Child:
    """The program that ``first`` started, or ``first`` itself when it could not."""
    DIVIDING.add(first.pid)
    reader = ReadEnd(report)
    timeout = gevent.Timeout(_DIVIDE_LIMIT)
    timeout.start()
    numbers: list[int] = []
    try:
        numbers = [int(number) for number in reader.read(64).split()]
        if not numbers:  # its end tells why, as that of any child
            return first
        # Not before it is gone: its group is killed at its end, and they have just left it.
        first.wait()
        keeper, program = numbers
        ends = (first.stdin, first.stdout, first.stderr)
        return Child(program, *ends, keeper=Child(keeper, -1, -1, -1))
    except BaseException as problem:
        discard(first)
        # Killed in here, or out of descriptors: nobody else knows of these two.
        _end(numbers)
        if problem is timeout:
            raise OSError(f"its namespaces were not made in {_DIVIDE_LIMIT:g} s") from None
        raise
    finally:
        timeout.close()
        reader.close()
        DIVIDING.discard(first.pid)


def _end(leaders: Iterable[int], descriptors: Iterable[int] = ()) -> None:
    """End the groups of children that nobody watches. Not collected yet, they have their numbers.

    Nor are they here: to wait for the end would stop the hub. In a host ``care`` collects them.
    """
    for pid in leaders:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    for fd in descriptors:
        if fd >= 0:
            _close(fd)


def _start(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    limits: Mapping[str, int],
    view: Sequence[str],
    descriptors: Sequence[int],
) -> int:
    # By arguments: a variable of ours would stay in the program's environment.
    pairs = ",".join(f"{name}={value}" for name, value in limits.items())
    head = [sys.executable, "-I", "-S", _TRAMPOLINE, str(os.getpid()), str(folder), pairs]
    head.append("\n".join(view))
    return int(
        _posix_spawn(
            sys.executable,
            [*head, *command],
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(descriptors)
            ],
            setsid=True,
            # What the host blocks or ignores would stay so in the program, through every exec.
            setsigmask=[],
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    )


class _Pipe(NamedTuple):
    read: int
    write: int


def _pipe(size: int) -> _Pipe:
    """Both ends, neither of them 0, 1 or 2: those are replaced in the child."""
    ends = []
    for fd in os.pipe():
        if fd > 2:
            ends.append(fd)
        else:
            ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
            _close(fd)
    if size:
        # Refused when this user has used up its share of pipe buffers: the default does.
        with contextlib.suppress(OSError):
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, size)
    return _Pipe(*ends)
