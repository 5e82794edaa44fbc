"""The second half of a slow consumer's backlog: a file that has no name.

What does not fit into memory is appended here and read back in order. The file is unlinked when
it is made, so nothing is left behind however the process ends.
"""

from __future__ import annotations

import struct
import tempfile
from collections import deque
from pathlib import Path
from typing import IO, Final, final

_LENGTH: Final = struct.Struct("<I")
#: Bytes that one read gives back, more or less.
READ_SIZE: Final = 1 << 20
#: A file is given back when it was read, so that a reader who is always a little behind does not
#: keep on the disk all that ever passed.
SEGMENT: Final = 64 << 20


@final
class Spool:
    """A queue of byte strings on disk. Owned by one stream; not safe for several greenlets."""

    __slots__ = ("_folder", "_segments", "size")

    def __init__(self, folder: Path) -> None:
        # Chunks are what tenants said and were told: nobody else on the machine reads them, not
        # even for the moment before the file loses its name.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._segments: deque[_Segment] = deque([_Segment(folder)])
        #: Bytes that wait.
        self.size = 0

    def append(self, body: bytes) -> None:
        """Put one body at the end; OSError when the disk does not take it."""
        if self._segments[-1].write_at >= SEGMENT:
            self._segments.append(_Segment(self._folder))
        self.size += self._segments[-1].append(body)

    def take(self) -> list[bytes]:
        """About :data:`READ_SIZE` bytes from the front, whole bodies, at least one."""
        first = self._segments[0]
        before = first.waiting
        bodies = first.take()
        self.size -= before - first.waiting
        if not first.waiting:
            if len(self._segments) > 1:
                self._segments.popleft().close()
            else:
                first.clear()
        return bodies

    def close(self) -> None:
        """Give the disk space back. Idempotent."""
        for segment in self._segments:
            segment.close()


@final
class _Segment:
    """One of its files."""

    __slots__ = ("_file", "_read_at", "write_at")

    def __init__(self, folder: Path) -> None:
        # Unbuffered: bytes in a buffer of ours would be neither counted as memory nor safe to seek
        # behind.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._read_at = 0
        self.write_at = 0

    @property
    def waiting(self) -> int:
        return self.write_at - self._read_at

    def append(self, body: bytes) -> int:
        """How many bytes that took."""
        # One descriptor for both ends, so every access says where: reading moved the position.
        self._file.seek(self.write_at)
        data = _LENGTH.pack(len(body)) + body
        view = memoryview(data)
        # A raw file may take a part only; a full disk says so by the next write.
        while view:
            view = view[self._file.write(view) :]
        self.write_at += len(data)
        return len(data)

    def take(self) -> list[bytes]:
        bodies: list[bytes] = []
        taken = 0
        self._file.seek(self._read_at)
        # Whole bodies: one that is cut would need a place to wait in until the next read.
        while self.waiting and taken < READ_SIZE:
            length = _LENGTH.unpack(self._read(_LENGTH.size))[0]
            bodies.append(self._read(length))
            taken += length
            self._read_at += _LENGTH.size + length
        return bodies

    def clear(self) -> None:
        # The last segment is used again instead of being made anew: a reader who keeps up would
        # make a file for each chunk.
        self._file.truncate(0)
        self._read_at = self.write_at = 0

    def close(self) -> None:
        self._file.close()

    def _read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size:
            piece = self._file.read(size)
            if not piece:
                raise OSError("the spool file is shorter than what was written to it")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)
