"""The second half of a slow consumer's backlog: a file that has no name.

What does not fit into memory is appended here and read back in order. The file is unlinked when
it is made, so nothing is left behind however the process ends.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import IO, Final, final

_LENGTH: Final = struct.Struct("<I")
#: Bytes that one read gives back, more or less.
READ_SIZE: Final = 1 << 20


@final
class Spool:
    """A queue of byte strings on disk. Owned by one stream; not safe for several greenlets."""

    __slots__ = ("_file", "_read_at", "_write_at")

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._read_at = 0
        self._write_at = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._write_at - self._read_at

    def append(self, body: bytes) -> None:
        """Put one body at the end; OSError when the disk does not take it."""
        self._file.seek(self._write_at)
        view = memoryview(_LENGTH.pack(len(body)) + body)
        while view:
            view = view[self._file.write(view) :]
        self._write_at += _LENGTH.size + len(body)

    def take(self) -> list[bytes]:
        """About :data:`READ_SIZE` bytes from the front, whole bodies, at least one."""
        bodies: list[bytes] = []
        taken = 0
        self._file.seek(self._read_at)
        while self._read_at < self._write_at and taken < READ_SIZE:
            length = _LENGTH.unpack(self._read(_LENGTH.size))[0]
            bodies.append(self._read(length))
            taken += length
            self._read_at += _LENGTH.size + length
        if self._read_at == self._write_at:
            self._file.truncate(0)
            self._read_at = self._write_at = 0
        return bodies

    def close(self) -> None:
        """Give the disk space back. Idempotent."""
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
