"""The records of a zip archive, read strictly: one meaning, or none (T-S3).

::

    [local header, name, extra, content, (descriptor)]*   one after the other, from byte 0
    [central header, name, extra, comment]*               what there is, in archive order
    (zip64 end, zip64 locator)   end record, comment      the last byte of the file

Every byte belongs to exactly one of these. What another program could read differently - gaps,
bytes in front, a second end record, headers that disagree - rejects the package.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import NoReturn, final

from tidegate.errors import PackageRejected

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4s LQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA = struct.Struct("<2H")
_END_MARK, _END64_MARK, _LOCATOR64_MARK = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL_MARK, _LOCAL_MARK, _DESCRIPTOR_MARK = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"

_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PATCH = 0x20
_DESCRIPTOR = 0x8
_COMPARED_FLAGS = _ENCRYPTED | _PATCH | _DESCRIPTOR | 0x800
_ZIP64_EXTRA, _UNICODE_PATH_EXTRA = 0x0001, 0x7075
_LONGEST_COMMENT = 0xFFFF
_MS_DOS_FOLDER = 0x10

STORED, DEFLATED = 0, 8
#: More entries than this reject a package: each costs time before anything is known about it.
MOST_ENTRIES = 0xFFFF


def reject(why: str) -> NoReturn:
    """Every refusal of this module: the package is no archive that one can trust."""
    raise PackageRejected(f"difypkg: not a valid difypkg file: {why}")


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the archive. ``start`` is where its (compressed) content begins."""

    raw_name: bytes
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    header: int
    start: int = 0


@final
@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies, how much is in it, and the archive's comment."""

    offset: int
    end: int
    count: int
    comment: bytes


def read_records(data: bytes) -> tuple[list[Record], bytes]:
    """All entries in archive order and the comment. PackageRejected on anything that is unclear."""
    directory = _find_directory(data)
    if not 0 < directory.count <= MOST_ENTRIES:
        reject(f"{directory.count} entries, at most {MOST_ENTRIES} are taken")
    # A reader that looks for the mark from the front would find another directory.
    if _END_MARK in data[directory.offset : directory.end]:
        reject("an end record inside the directory")
    headers = _read_central(data, directory)
    starts = _read_locals(data, headers, directory.offset)
    records = [
        Record(h.raw_name, h.method, h.flags, h.crc, h.packed, h.size, h.header, starts[h.header])
        for h in headers
    ]
    return records, directory.comment


def _find_directory(data: bytes) -> Directory:
    # The last mark is what every reader takes; it must then really end the file.
    at = data.rfind(_END_MARK, max(0, len(data) - _LONGEST_COMMENT - _END.size))
    if at < 0 or at + _END.size > len(data):
        reject("no end record")
    _, disk, start_disk, on_disk, count, size, offset, length = _END.unpack_from(data, at)
    if at + _END.size + length != len(data):
        reject("bytes after the end record")
    if data[max(0, at - _LOCATOR64.size) : at][:4] == _LOCATOR64_MARK:
        end, values = _find_end64(data, at)
        # Each field says the same or "see there": some readers prefer the short record, others the
        # long one.
        if any(
            short not in (full, long)
            for short, long, full in zip(
                (disk, start_disk, on_disk, count, size, offset),
                values,
                (_FULL16, _FULL16, _FULL16, _FULL16, _FULL32, _FULL32),
                strict=True,
            )
        ):
            reject("the zip64 end record disagrees with the end record")
        disk, start_disk, on_disk, count, size, offset = values
    else:
        end = at
    if disk or start_disk or on_disk != count:
        reject("it is one part of several")
    # Nothing may lie between the directory and its end, where a second one could be hidden.
    if offset + size != end:
        reject("the directory is not where the end record says")
    return Directory(offset, end, count, data[at + _END.size :])


def _find_end64(data: bytes, end_at: int) -> tuple[int, tuple[int, ...]]:
    _, disk, at, disks = _LOCATOR64.unpack_from(data, end_at - _LOCATOR64.size)
    if disk or disks > 1 or at + _END64.size + _LOCATOR64.size != end_at:
        reject("the zip64 locator points elsewhere")
    mark, size, _, _, *values = _END64.unpack_from(data, at)
    if mark != _END64_MARK or size != _END64.size - 12:
        reject("the zip64 end record is broken")
    return at, tuple(values)


def _read_central(data: bytes, directory: Directory) -> list[Record]:
    headers, at = [], directory.offset
    for _ in range(directory.count):
        if at + _CENTRAL.size > directory.end or data[at : at + 4] != _CENTRAL_MARK:
            reject("the directory holds less than the end record says")
        header, at = _central_header(data, at)
        headers.append(header)
    if at != directory.end:
        reject("the directory holds more than the end record says")
    return headers


def _central_header(data: bytes, at: int) -> tuple[Record, int]:
    (_, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length) = (
        _CENTRAL.unpack_from(data, at)[:13]
    )
    disk, _, attributes, header = _CENTRAL.unpack_from(data, at)[13:]
    name_at = at + _CENTRAL.size
    extra_at = name_at + name_length
    name = data[name_at:extra_at]
    extra = _extras(data[extra_at : extra_at + extra_length])
    packed, size, header = _widened(extra, [size, packed, header], disk)
    _check_header(name, flags, method, attributes, extra)
    # Which of the two a reader takes is not written anywhere.
    if method == STORED and packed != size:
        reject(f"{name!r} has two sizes")
    record = Record(name, method, flags, crc, packed, size, header)
    return record, extra_at + extra_length + comment_length


def _widened(extra: dict[int, bytes], fields: list[int], disk: int) -> tuple[int, int, int]:
    """(packed, size, header) with the zip64 values where a field says so, and nowhere else."""
    full = [index for index, value in enumerate(fields) if value == _FULL32]
    body = extra.get(_ZIP64_EXTRA, b"")
    # Exactly the fields that are needed: readers take them by position, and one too many shifts
    # the rest.
    if len(body) != 8 * len(full) + (4 if disk == _FULL16 else 0):
        reject("a zip64 field does not fit its header")
    for place, index in enumerate(full):
        fields[index] = int.from_bytes(body[8 * place : 8 * place + 8], "little")
    if disk not in (0, _FULL16) or (disk and any(body[-4:])):
        reject("it is one part of several")
    size, packed, header = fields
    return packed, size, header


def _extras(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    # Fewer than four bytes at the end are padding (zipalign); readers skip them.
    while at + _EXTRA.size <= len(body):
        kind, length = _EXTRA.unpack_from(body, at)
        at += _EXTRA.size
        if at + length > len(body):
            reject("an extra field is cut off")
        if kind in found and kind in (_ZIP64_EXTRA, _UNICODE_PATH_EXTRA):
            reject("an extra field is there twice")
        found[kind] = body[at : at + length]
        at += length
    return found


def _check_header(
    name: bytes, flags: int, method: int, attributes: int, extra: dict[int, bytes]
) -> None:
    if flags & (_ENCRYPTED | _PATCH):
        reject(f"{name!r} is encrypted")
    if method not in (STORED, DEFLATED):
        reject(f"{name!r} is compressed by method {method}; stored and deflated are taken")
    kind = stat.S_IFMT(attributes >> 16)
    if kind not in (0, stat.S_IFREG) or attributes & _MS_DOS_FOLDER:
        reject(
            f"{name!r} is no regular file but a link, a folder or a device: "
            "pack files only, as `tidegate plugin package` does"
        )
    # A second name: some unpackers would use it instead of the one that we check.
    if extra.get(_UNICODE_PATH_EXTRA, b"")[5:] not in (b"", name):
        reject(f"{name!r} has a second name")


def _read_locals(data: bytes, headers: list[Record], directory_at: int) -> dict[int, int]:
    """Where each content starts, by header offset; checks that nothing lies between them."""
    starts: dict[int, int] = {}
    expected = 0
    # By position: overlaps (one content for many entries, the better bomb) and gaps show between
    # neighbours.
    ordered = sorted(headers, key=lambda header: header.header)
    for header, following in zip(ordered, [*ordered[1:], None], strict=True):
        if header.header != expected:
            reject(f"{header.raw_name!r} overlaps another file, or bytes belong to no file")
        start = _check_local(data, header)
        boundary = following.header if following else directory_at
        if start + header.packed > boundary:
            reject(f"{header.raw_name!r} overlaps another file")
        _check_descriptor(data[start + header.packed : min(boundary, len(data))], header)
        starts[header.header] = start
        expected = boundary
    return starts


def _check_local(data: bytes, header: Record) -> int:
    at = header.header
    if at + _LOCAL.size > len(data) or data[at : at + 4] != _LOCAL_MARK:
        reject(f"{header.raw_name!r} is not where the directory says")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(
        data, at
    )
    name_end = at + _LOCAL.size + int(name_length)
    start = name_end + int(extra_length)
    extra = _extras(data[name_end:start])
    same = (
        data[at + _LOCAL.size : name_end] == header.raw_name
        and method == header.method
        # Only those that change the reading: archivers differ in the others.
        and not (flags ^ header.flags) & _COMPARED_FLAGS
        and extra.get(_UNICODE_PATH_EXTRA, b"")[5:] in (b"", header.raw_name)
    )
    if not same or not _same_sizes(header, crc, packed, size, extra.get(_ZIP64_EXTRA)):
        reject(f"{header.raw_name!r} is described in two ways")
    return start


def _same_sizes(header: Record, crc: int, packed: int, size: int, zip64: bytes | None) -> bool:
    if zip64 is not None:
        # A local zip64 field always holds both sizes; other programs read it whatever is before.
        if len(zip64) != 16 or (size, packed) != (_FULL32, _FULL32):
            return False
        size, packed = (int.from_bytes(part, "little") for part in (zip64[:8], zip64[8:]))
    found, real = (crc, packed, size), (header.crc, header.packed, header.size)
    # Zeros in front when the sizes come behind: that is what the flag announces.
    return found == real or (bool(header.flags & _DESCRIPTOR) and found == (0, 0, 0))


def _check_descriptor(between: bytes, header: Record) -> None:
    """What stands between a content and the next header: its descriptor, or nothing."""
    if not header.flags & _DESCRIPTOR:
        if between:
            reject(f"bytes after {header.raw_name!r} belong to no file")
        return
    short = struct.pack("<3L", header.crc, header.packed & _FULL32, header.size & _FULL32)
    long = struct.pack("<L2Q", header.crc, header.packed, header.size)
    if between in (short, long, _DESCRIPTOR_MARK + short, _DESCRIPTOR_MARK + long):
        return
    reject(f"the descriptor of {header.raw_name!r} disagrees with the directory")
