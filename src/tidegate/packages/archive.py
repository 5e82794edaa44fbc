"""A package's files, read safely: bounded by what is really unpacked (T-S1, T-S2, T-S3)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol, final

from tidegate.errors import PackageRejected
from tidegate.packages.names import NameBook, decode_name
from tidegate.packages.zip_records import DEFLATED, Record, read_records, reject


class Files(Protocol):
    """Files by their names: an archive, or what a debugged plugin sent."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, in order."""

    def __contains__(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Size of a file in bytes. KeyError when it is not there."""

    def read(self, name: str) -> bytes:
        """Content of a file. KeyError when it is not there, PackageRejected when it is broken."""


@final
class Archive:
    """A zip archive that has exactly one reading. Immutable; safe to share between threads.

    Nothing is unpacked until :meth:`read` asks for it. Never holds more than one file's content.
    """

    def __init__(self, data: bytes, *, limit: int) -> None:
        """Read the directory. ``limit`` (bytes) bounds the file and the sum of its contents."""
        # The limit twice: the file for itself, since headers and names count as well, and what it
        # says it unpacks to. That it does not lie is seen in `read`.
        if len(data) > limit:
            raise _too_large(limit)
        records, self.comment = read_records(data)
        if sum(record.size for record in records) > limit:
            raise _too_large(limit)
        self._data = data
        self._records: dict[str, Record] = {}
        book = NameBook()
        for record in records:
            name = decode_name(record.raw_name)
            book.add(name)
            self._records[name] = record

    @property
    def names(self) -> tuple[str, ...]:
        """Every file in archive order, cleaned; the order that a signature covers."""
        return tuple(self._records)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def size(self, name: str) -> int:
        """Unpacked size of a file in bytes. KeyError when it is not there."""
        return self._records[name].size

    def read(self, name: str) -> bytes:
        """Content of a file. KeyError when it is not there, PackageRejected when it is broken."""
        record = self._records[name]
        packed = memoryview(self._data)[record.start : record.start + record.packed]
        content = _inflate(packed, record) if record.method == DEFLATED else bytes(packed)
        if len(content) != record.size or zlib.crc32(content) != record.crc:
            reject(f"{name!r} is damaged: size or check value is wrong")
        return content

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every file in archive order, one at a time."""
        for name in self._records:
            yield name, self.read(name)


def _inflate(packed: memoryview, record: Record) -> bytes:
    # One byte more than promised is enough to see a lie, and all that a bomb can make us write.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(packed, record.size + 1)
    except zlib.error as error:
        reject(f"{record.raw_name!r} is damaged: {error}")
    # A stream that goes on behind its end would be another file's content to another program.
    if not inflater.eof or inflater.unused_data:
        reject(f"{record.raw_name!r} is damaged: it does not end where it should")
    return content


def _too_large(limit: int) -> PackageRejected:
    return PackageRejected(
        "plugin package size is too large, please ensure the uncompressed size is less than "
        f"{limit} bytes",
        limit=limit,
    )
