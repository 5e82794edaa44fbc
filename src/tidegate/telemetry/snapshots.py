"""What each process counted, in files that its siblings read: ``run/metrics/`` (ADR 13).

    <role>-<pid>-<token>.lock   locked (flock) by the process while it lives, however it ends
                        .json   its :class:`Snapshot`, replaced whole
    gone.json                   the sum of processes that have gone, and whose it is
    fold.lock                   held by whoever comes or adds up; never by a reader

Life is told by the lock and not by the process id: ids come back, and roles in two containers
on one data folder do not see each other's. Loaded by Gunicorn's master before the patch, so
nothing of gevent, threading or prometheus_client may be imported here.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, final

import msgspec

#: Below ``run/`` of the data folder.
FOLDER: Final = "metrics"
_GONE: Final = "gone.json"
_FOLD: Final = "fold.lock"
#: Readings in a row that may be spoiled by somebody who adds up; each start of a process is one.
_TRIES: Final = 5

#: Values by label values: one number of a counter or gauge; of a histogram its buckets and sum.
type Samples = list[tuple[tuple[str, ...], list[float]]]


class Snapshot(msgspec.Struct):
    """What one process counted, by metric: what only grows, and what is true while it lives."""

    grown: dict[str, Samples] = msgspec.field(default_factory=dict)
    current: dict[str, Samples] = msgspec.field(default_factory=dict)


class _Gone(msgspec.Struct):
    """The sum of the dead; ``folded`` names those whose files may still be there."""

    grown: dict[str, Samples] = msgspec.field(default_factory=dict)
    folded: list[str] = msgspec.field(default_factory=list)


@final
class Totals:
    """Snapshots added up: ``values[metric][labels]``."""

    def __init__(self) -> None:
        self.values: dict[str, dict[tuple[str, ...], list[float]]] = {}

    def add(self, samples: dict[str, Samples]) -> None:
        """Add those of one process. A histogram with other buckets (of a version before a reload)
        cannot be added and is left out; the answering process comes first, so its shape stands.
        """
        for name, rows in samples.items():
            known = self.values.setdefault(name, {})
            for labels, values in rows:
                before = known.get(labels)
                if before is None:
                    known[labels] = list(values)
                elif len(before) == len(values):
                    known[labels] = [one + more for one, more in zip(before, values, strict=True)]

    def samples(self) -> dict[str, Samples]:
        """As a snapshot holds them."""
        return {name: list(rows.items()) for name, rows in self.values.items()}


@final
class OwnFile:
    """This process's file. Made once per process, after the last fork."""

    def __init__(self, folder: Path, role: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        # A token: process ids come back, and are the same in two containers.
        self.name = f"{role}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / f"{self.name}.json"
        self._written = b""
        # A newborn's lock is taken under the fold's, or it could be taken for dead.
        with _folding(folder):
            self._lock = (folder / f"{self.name}.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            _fold(folder)

    def changed(self, snapshot: Snapshot) -> bytes | None:
        """The bytes to :meth:`write`; None when they are what the file holds already."""
        data = msgspec.json.encode(snapshot)
        return None if data == self._written else data

    def write(self, data: bytes) -> None:
        """Replace the file whole. OSError when the disk is full or the folder gone."""
        draft = self._path.with_suffix(".tmp")
        draft.write_bytes(data)
        # By a rename: readers take no lock.
        draft.replace(self._path)
        self._written = data

    def close(self) -> None:
        """Count among the dead from now on."""
        self._lock.close()


def read_others(folder: Path, own: str = "") -> list[Snapshot]:
    """Snapshots of all processes but ``own``: of the dead only what they added up to.

    Called while /metrics/ is answered; files are few and small (the dead are folded into one when
    a process starts). Without a lock, so that nobody waits: when the dead were folded meanwhile,
    they could be missed, and all is read again.
    """
    found: list[Snapshot] = []
    for _ in range(_TRIES):
        before = _version(folder)
        gone = _read_gone(folder)
        found = [Snapshot(grown=gone.grown)]
        for name in _names(folder) - {own, *gone.folded}:
            dead = _is_dead(folder, name)
            one = _read(folder, name)
            found.append(Snapshot(grown=one.grown) if dead else one)
        if _version(folder) == before:
            break
    return found


def forget_the_gone(folder: Path) -> None:
    """Begin at zero: drop what processes left that do not live. Called by api's master.

    A process of another role that lives on keeps its counts, as it would alone.
    """
    if not folder.is_dir():
        return
    with _folding(folder):
        (folder / _GONE).unlink(missing_ok=True)
        for name in _names(folder):
            if _is_dead(folder, name):
                _remove(folder, name)


def _fold(folder: Path) -> None:
    """Add the dead to ``gone.json`` so that their number does not grow. Under the fold's lock.

    The sum is there, with their names, before the first file goes: killed in between, the next
    one sees by the name that a file is in the sum.
    """
    gone = _read_gone(folder)
    there = _names(folder)
    dead = {name for name in there if _is_dead(folder, name)}
    if not dead:
        return
    totals = Totals()
    totals.add(gone.grown)
    for name in dead - set(gone.folded):
        totals.add(_read(folder, name).grown)
    data = msgspec.json.encode(_Gone(totals.samples(), sorted(dead)))
    draft = folder / f"{_GONE}.tmp"
    draft.write_bytes(data)
    draft.replace(folder / _GONE)
    for name in dead:
        _remove(folder, name)


@contextmanager
def _folding(folder: Path) -> Iterator[IO[str]]:
    with (folder / _FOLD).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {_stem(path) for path in folder.glob("*-*-*.*")}


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _is_dead(folder: Path, name: str) -> bool:
    try:
        with (folder / f"{name}.lock").open() as lock:
            # Shared, so that two who look do not take each other for the owner.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _remove(folder: Path, name: str) -> None:
    # The lock last: while it is there, what else is left still has an owner who is known dead.
    for suffix in (".tmp", ".json", ".lock"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _read(folder: Path, name: str) -> Snapshot:
    """Empty when it has written nothing yet, was folded meanwhile, or nobody can read it."""
    try:
        return msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=Snapshot)
    except (OSError, msgspec.MsgspecError):
        return Snapshot()


def _read_gone(folder: Path) -> _Gone:
    try:
        return msgspec.json.decode((folder / _GONE).read_bytes(), type=_Gone)
    except (OSError, msgspec.MsgspecError):
        return _Gone()


def _version(folder: Path) -> tuple[int, ...]:
    try:
        found = (folder / _GONE).stat()
    except FileNotFoundError:
        return ()
    # Both: an inode's number is soon used again.
    return (found.st_ino, found.st_mtime_ns)
