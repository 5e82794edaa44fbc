"""How a plugin's output is read: as much as there is, one flush per wake-up, never too often.

A plugin that writes many small messages wakes its reader for each of them, and both burn CPU on
the waking. So when reads have followed each other closely for a while and brought little, the
reader rests a millisecond before the next one: a message is late by that at most, and costs a
fifth of the CPU.

A plugin that floods fills its pipe as fast as it is emptied. With many streams one pipeful holds
about one chunk of each, and then every chunk is a frame, a wake-up and a write to a client of its
own. So the pipe is widened when it was found full, and while it is full again the reader takes
more before it sends: a thousand streams cost half, and no chunk waits for longer than these reads
take.
"""

from __future__ import annotations

import contextlib
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol

import gevent

from tidegate.clock import GIVE_WAY, SYSTEM_CLOCK

READ_SIZE: Final = 1 << 20
#: What a pipe holds as it comes, and the most that Linux gives to anybody.
_PIPE: Final = 64 << 10
_WIDE: Final = 1 << 20
#: From this size on a read is one of a flood, and what was read in a row is bounded.
_FLOOD: Final = 256 << 10
_GATHERED: Final = 4 << 20
_SMALL: Final = 16 << 10
#: Seconds of a take from which on the next one gets less, and others their turn before it.
_LONG: Final = 0.01
_LEAST: Final = 8 << 10
_CLOSE: Final = 0.0004
_STREAK: Final = 16
_REST: Final = 0.001
_now = SYSTEM_CLOCK.monotonic


class Source(Protocol):
    """What can be read until it ends: a pipe, a connection."""

    @property
    def fd(self) -> int:
        """Its descriptor."""

    def read(self, size: int) -> bytes:
        """What is there, ``size`` bytes at most; waits for the first. Empty at the end."""


def read_all(source: Source, take: Callable[[bytes], None], send: Callable[[], None]) -> None:
    """Give ``take`` what comes until ``source`` ends. Body of a reader greenlet.

    ``send`` is called after one ``take`` or a few: it flushes what they left to be sent.
    """
    read = source.read
    streak = size = 0
    most, wide = READ_SIZE, False
    while True:
        asked = _now()
        # What is asked for is allocated first, and most reads bring little.
        data = read(min(most, READ_SIZE if size >= _PIPE else _PIPE))
        if not data:
            return
        size = len(data)
        read_at = _now()
        streak = streak + 1 if size < _SMALL and read_at - asked < _CLOSE else 0
        if size >= _PIPE and not wide:
            wide = True
            _widen(source)
        try:
            take(data)
            took = _now() - read_at
            if size >= _FLOOD and took < _LONG:
                _take_more(source, take, size)
        finally:
            # A reader that is ended between two reads owes its callers what it has taken.
            send()
        if took > _LONG:
            # Lines that are dear to look at: a mebibyte of broken ones takes a quarter second.
            most = max(_LEAST, min(most, size) // 4)
            gevent.sleep(GIVE_WAY)
        elif most < READ_SIZE:
            most *= 2
        if streak > _STREAK:
            gevent.sleep(_REST)


def _widen(source: Source) -> None:
    # Refused for a socket, and to a user who has used up his share of pipe buffers.
    with contextlib.suppress(OSError):
        fcntl.fcntl(source.fd, fcntl.F_SETPIPE_SZ, _WIDE)


def _take_more(source: Source, take: Callable[[bytes], None], taken: int) -> None:
    while taken < _GATHERED:
        gevent.sleep(GIVE_WAY)  # others run between two pieces: each takes milliseconds
        if unread(source) < _FLOOD:
            return
        data = source.read(READ_SIZE)
        take(data)
        taken += len(data)


def unread(source: Source) -> int:
    """Bytes that wait to be read."""
    answer = fcntl.ioctl(source.fd, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
