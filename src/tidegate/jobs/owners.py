"""Who lives on this machine and holds messages or jobs, and how its processes are woken.

A folder, beside the broker's file for those of messages; one pair of files per process:

| file | meaning |
|---|---|
| ``<owner>.lock`` | locked (flock) while that process lives: the kernel frees it at any death |
| ``<owner>.sock`` | unix datagram socket: one byte on it means "look again" |

There is no lease: a long job never runs twice, and a suspended laptop loses nothing. It works on
one machine only (flock and unix sockets are local).

Sockets are addressed through ``/proc/self/fd/<folder>``, so that a data folder deeper than the
107 bytes of a socket address works.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import final

_NEW, _LOCK, _SOCKET = ".new", ".lock", ".sock"


@final
class Owners:
    """One such folder, seen by one process: beside the broker's file for whoever holds messages,
    of the workers for whoever holds jobs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = -1
        self._wake: socket.socket | None = None
        self._bell: socket.socket | None = None
        self.me = ""

    def hold(self) -> str:
        """This process's name as an owner; the first call makes its lock."""
        if not self.me:
            self._make_lock()
        return self.me

    def join(self) -> str:
        """:meth:`hold`, for whoever is to be woken as well: the first call makes its socket."""
        self.hold()
        if self._wake is None:
            self._make_socket()
        return self.me

    def leave(self) -> None:
        """Give the name up: called at an orderly exit, after the rows were given back."""
        if self.me:
            if self._wake is not None:
                self._wake.close()
            self._forget(self.me)
            os.close(self._lock)
            self._lock, self._wake, self.me = -1, None, ""

    def close(self) -> None:
        """:meth:`leave`, and give the descriptors up."""
        self.leave()
        if self._bell is not None:
            self._bell.close()
        os.close(self._folder)

    def disown(self) -> None:
        """In a child forked without exec: drop the inherited lock, so that it dies with its owner.

        The descriptor is closed, not unlocked: an unlock would free the parent's lock as well.
        """
        if self._lock >= 0:
            os.close(self._lock)
            self._lock, self.me = -1, ""

    @contextlib.contextmanager
    def buried(self, owner: str) -> Iterator[bool]:
        """Whether ``owner`` is dead. While the body runs nobody else buries it; then it is gone."""
        lock = self._lock_of_dead(owner)
        if lock is None:
            yield False
            return
        try:
            yield True
            self._forget(owner)
        finally:
            if lock >= 0:
                os.close(lock)

    def known(self) -> set[str]:
        """Everybody with a lock file, dead or alive, but not this process."""
        names = {Path(name).stem for name in os.listdir(self._folder) if name.endswith(_LOCK)}
        return names - {self.me}

    def ring(self) -> None:
        """Wake every consuming process. Called after a message became available."""
        for name in os.listdir(self._folder):
            if name.endswith(_SOCKET):
                self._send(name)

    def nudge(self) -> None:
        """Wake only this process: something that it waited for happened in itself."""
        if self.me:
            self._send(self.me + _SOCKET)

    def wait(self, seconds: float) -> None:
        """Wait until somebody rings, ``seconds`` at most. Any number of greenlets may wait."""
        self.join()
        wake = self._wake
        if wake is None:
            raise RuntimeError("an owner without a socket waits")
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if poll.poll(seconds * 1000):
            # whoever else was woken by the same byte looks again too: level-triggered
            with contextlib.suppress(BlockingIOError):
                while wake.recv(16):
                    pass

    def _make_lock(self) -> None:
        """Create, lock, then show: a lock file is never seen unlocked while its owner lives."""
        name = uuid.uuid4().hex
        lock = self._open(name + _NEW, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(name + _NEW, name + _LOCK, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._lock, self.me = lock, name

    def _make_socket(self) -> None:
        self._wake = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wake.setblocking(False)
        self._wake.bind(self._address(self.me + _SOCKET))

    def _send(self, name: str) -> None:
        if self._bell is None:
            self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._bell.setblocking(False)
        # full: it will look again anyway; refused: its owner is dead and gets buried
        with contextlib.suppress(OSError):
            self._bell.sendto(b"!", self._address(name))

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._folder}/{name}"

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=self._folder)

    def _lock_of_dead(self, owner: str) -> int | None:
        """Its lock, taken by us: None while it lives, -1 when there is no lock file at all."""
        if owner == self.me:
            return None
        try:
            lock = self._open(owner + _LOCK, os.O_RDWR)
        except FileNotFoundError:
            return -1
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _forget(self, owner: str) -> None:
        for ending in (_SOCKET, _LOCK):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(owner + ending, dir_fd=self._folder)
