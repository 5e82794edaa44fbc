"""How a plugin's output is read: as much as there is, one flush per wake-up, never too often.

A plugin that writes many small messages wakes its reader for each of them, and both burn CPU on
the waking. So when reads have followed each other closely for a while and brought little, the
reader rests a millisecond before the next one: a message is late by that at most, and costs a
fifth of the CPU.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol

import gevent

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import ReadEnd

READ_SIZE: Final = 256 << 10
_SMALL: Final = 16 << 10
_CLOSE: Final = 0.0004
_STREAK: Final = 16
_REST: Final = 0.001
_now = SYSTEM_CLOCK.monotonic


class Source(Protocol):
    """What can be read until it ends: a pipe, a connection."""

    def read(self, size: int) -> bytes:
        """What is there, ``size`` bytes at most; waits for the first. Empty at the end."""


def read_all(pipe: Source, take: Callable[[bytes], None]) -> None:
    """Give ``take`` what comes until the pipe ends. Body of a reader greenlet."""
    read = pipe.read
    streak = 0
    while True:
        asked = _now()
        data = read(READ_SIZE)
        if not data:
            return
        if len(data) < _SMALL and _now() - asked < _CLOSE:
            streak += 1
        else:
            streak = 0
        take(data)
        if streak > _STREAK:
            gevent.sleep(_REST)


def unread(pipe: ReadEnd) -> int:
    """Bytes that wait in the pipe."""
    answer = fcntl.ioctl(pipe.fd, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
