"""The processes of this machine as the kernel shows them, and which plugin each belongs to.

A plugin's process is the leader of a session of its own. What it starts belongs to it: by the
session, by descent, and, once seen, for good - a process that left its session or whose parent
ended is still known by its number and the time that it was started. In a process namespace of
its own its orphans become children of the namespace's keeper, which stands for the plugin then.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from gevent import monkey

from tidegate.environments import keepers

# gevent's own close waits for the hub; these descriptors have no watcher.
_close = monkey.get_original("os", "close")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@final
@dataclass(frozen=True, slots=True)
class Process:
    """One process. ``started`` (in ticks since the boot) tells it from an earlier namesake."""

    pid: int
    state: str
    parent: int
    session: int
    cpu: float
    memory: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs, and is not waiting to be collected."""
        return self.state not in ("Z", "X")


def look_at(pid: int | str) -> Process | None:
    """One process; None when it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        _close(fd)
    # From the last bracket: a program's name may hold spaces and brackets of its own.
    words = text[text.rfind(b")") + 2 :].split()
    return Process(
        pid=int(pid),
        state=chr(words[0][0]),
        parent=int(words[1]),
        session=int(words[3]),
        cpu=(int(words[11]) + int(words[12])) / _TICKS,
        memory=int(words[21]) * _PAGE,
        started=int(words[19]),
    )


def scan() -> dict[int, Process]:
    """Every process of the machine, by number."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := look_at(name)) is not None:
            found[process.pid] = process
    return found


def waited_for_cpu(pid: int) -> float:
    """Seconds that the first thread of a process was ready to run and got no core."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def holds(pid: int, pipe: int) -> bool:
    """Whether a process has the other end of ``pipe``, a descriptor of ours; true if in doubt."""
    folder = f"/proc/{pid}/fd"
    try:
        own = os.fstat(pipe)
        # Nearly always it is there: a look at one file, not at all of them.
        if _is_file(f"{folder}/1", own):
            return True
        return any(_is_file(f"{folder}/{name}", own) for name in os.listdir(folder))
    except OSError:  # it is gone, or nothing that this user may look into
        return True


def _is_file(path: str, known: os.stat_result) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(known, os.stat(path))
    return False


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it was started."""
    try:
        text = Path("/proc/vmstat").read_bytes()
    except OSError:
        return 0
    found = re.search(rb"^oom_kill (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def kill(processes: Iterable[Process]) -> None:
    """SIGKILL to each, and to nobody who got its number since (T-K6)."""
    for process in processes:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(process.pid)
            try:
                now = look_at(process.pid)
                # A pidfd holds the number only from now on; the time of its start says that it is
                # the same.
                if now is not None and now.started == process.started:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                _close(pidfd)


@final
class Families:
    """Which plugin each process belongs to. Owned by ``care``; remembers what it saw."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}

    def sort(
        self, processes: dict[int, Process], leaders: Iterable[int]
    ) -> dict[int, list[Process]]:
        """The living processes of each leader, itself included."""
        families: dict[int, list[Process]] = {leader: [] for leader in leaders}
        kept = keepers()
        owners: dict[int, int] = dict(kept)
        known: dict[tuple[int, int], int] = {}
        for process in processes.values():
            owner = self._owner(process, processes, families, owners)
            if owner and process.pid not in kept:
                # What is not in this scan is forgotten: the memory is as large as the machine is
                # busy.
                known[process.pid, process.started] = owner
                if process.alive and owner in families:
                    families[owner].append(process)
        self._known = known
        return families

    def orphans_of(self, leader: int, processes: dict[int, Process]) -> list[Process]:
        """What is left of a leader that ended and was collected."""
        known = dict(self._known)
        left = self.sort(processes, {*known.values(), leader})[leader]
        if leader in processes:
            # Somebody got its number, and so its session is another one: only who was seen counts.
            left = [one for one in left if known.get((one.pid, one.started)) == leader]
            left = [one for one in left if one.pid != leader]
        return left

    def forget(self, leader: int) -> None:
        """Nothing is left of ``leader``: its number may come again."""
        self._known = {key: owner for key, owner in self._known.items() if owner != leader}

    def knows(self, process: Process) -> bool:
        """Whether the process was ever seen to belong to a plugin."""
        return (process.pid, process.started) in self._known

    def _owner(
        self,
        process: Process,
        processes: dict[int, Process],
        families: dict[int, list[Process]],
        owners: dict[int, int],
    ) -> int:
        """The leader that ``process`` belongs to; 0 when to none."""
        trail = []
        at: Process | None = process
        found = 0
        while at is not None and at.pid not in owners:
            trail.append(at.pid)
            owners[at.pid] = 0  # a circle cannot be, but a scan is no snapshot
            if at.session in families:
                found = at.session
            else:
                found = self._known.get((at.pid, at.started), 0)
            if found:
                break
            # Up to the next ancestor of which it is known; each process is looked at once per scan.
            at = processes.get(at.parent)
        if not found and at is not None:
            found = owners[at.pid]
        for pid in trail:
            owners[pid] = found
        return found
