"""Frames of the link between roles, without any I/O (docs/adr/003).

    0        4        8     9      10       12
    +--------+--------+-----+------+--------+------------- - -
    | length | number | kind| flags| 0      | body (length bytes)
    +--------+--------+-----+------+--------+------------- - -
      u32 LE   u32 LE   u8    u8     u16

``number`` is the call, chosen by the side that opens it and never used again on that connection;
0 is the connection itself. A body longer than :data:`FRAME_LIMIT` is cut into frames that carry
``MORE`` but for the last, so that END and CANCEL of other calls are not stuck behind it.

| kind   | from   | body |
|--------|--------|------|
| OPEN   | client | JSON head, ``\\n``, payload bytes |
| CHUNK  | server | JSON texts joined by ``\\n`` (none is inside a plugin's line) |
| ERROR  | server | JSON ``{error_type, message, args}``; END follows |
| END    | server | empty; the number is done |
| CANCEL | client | empty; END may cross it |
| NOTICE | server | JSON, number 0: something that every connection must hear |
"""

from __future__ import annotations

import enum
import struct
from typing import Final, final

from tidegate.wire.pieces import Pieces, cut, size_of

HEADER: Final = struct.Struct("<IIBBH")
HEADER_SIZE: Final = HEADER.size
FRAME_LIMIT: Final = 1 << 20
#: A peer that announces more than this in one frame does not speak this protocol.
FRAME_MAX: Final = FRAME_LIMIT
MORE: Final = 1


class Kind(enum.IntEnum):
    """What a frame is. The table in the module's docstring says who sends which."""

    OPEN = 1
    CHUNK = 2
    END = 3
    ERROR = 4
    CANCEL = 5
    NOTICE = 6


#: (number, kind, flags, body) as :meth:`FrameReader.feed` gives it.
type Frame = tuple[int, int, int, bytes]


class FrameError(ValueError):
    """The peer sent what is no frame; the connection must be closed."""


def encode(kind: Kind, number: int, body: bytes | Pieces = b"") -> list[bytes | memoryview]:
    """The pieces to send for one message, cut with MORE where it is long. Never empty.

    What is cut is not copied: the frames are views of ``body``.
    """
    size = size_of(body)
    if size <= FRAME_LIMIT and not isinstance(body, tuple):
        head = HEADER.pack(size, number, kind, 0, 0)
        return [head, body] if body else [head]
    parts: list[bytes | memoryview] = []
    left = size
    for group in cut(body if isinstance(body, tuple) else (body,), FRAME_LIMIT):
        length = min(left, FRAME_LIMIT)
        left -= length
        parts.append(HEADER.pack(length, number, kind, MORE if left else 0, 0))
        parts += group
    return parts


@final
class FrameReader:
    """Cuts a stream of bytes into frames. One per connection; not thread-safe."""

    __slots__ = ("_missing", "_rest")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that is whole now. FrameError when the peer speaks something else."""
        # Kept in pieces until a frame is whole: a join for each read would copy a megabyte four
        # times.
        if self._rest:
            self._rest.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._rest)
            self._rest = []
        frames: list[Frame] = []
        unpack = HEADER.unpack_from
        offset, size = 0, len(data)
        while size - offset >= HEADER_SIZE:
            length, number, kind, flags, _ = unpack(data, offset)
            # Whoever is out of step, or speaks HTTP, is found by his first header.
            if length > FRAME_MAX or not 1 <= kind <= 6:
                raise FrameError(f"no frame: kind {kind}, length {length}")
            end = offset + HEADER_SIZE + length
            if end > size:
                break
            frames.append((number, kind, flags, data[offset + HEADER_SIZE : end]))
            offset = end
        if offset < size:
            self._keep(data[offset:] if offset else data)
        return frames

    def _keep(self, rest: bytes) -> None:
        self._rest = [rest]
        need = HEADER_SIZE
        if len(rest) >= HEADER_SIZE:
            need += HEADER.unpack_from(rest)[0]
        self._missing = need - len(rest)

    @property
    def pending(self) -> int:
        """Bytes held that do not make a frame yet."""
        return sum(map(len, self._rest))
