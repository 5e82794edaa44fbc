"""Long texts in pieces: what is tens of megabytes long is not copied to be put together.

A request of 200 MB passes from the body of a request to a plugin's standard input. Each join on
that way would hold it twice and stop the hub while it copies, so from :data:`LONG` on a line is a
tuple of buffers, views of the bytes that came. What is shorter stays bytes: joining it is cheaper
than carrying its pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

#: From this many bytes on a text is kept in pieces.
LONG: Final = 256 << 10

type Pieces = tuple[bytes | memoryview, ...]


def size_of(text: bytes | Pieces) -> int:
    """Bytes of a text, whichever way it is kept."""
    # Not a test for bytes: a chunk may be a msgspec.Raw, which is no sequence.
    return sum(map(len, text)) if isinstance(text, tuple) else len(text)


def whole(text: bytes | Pieces) -> bytes:
    """The text in one piece: a copy when it is in several."""
    return b"".join(text) if isinstance(text, tuple) else text


def cut(pieces: Iterable[bytes | memoryview], limit: int) -> Iterator[list[bytes | memoryview]]:
    """The same bytes in groups of exactly ``limit`` bytes, the last one shorter; no copies."""
    group: list[bytes | memoryview] = []
    room = limit
    for piece in pieces:
        # Views only: a frame's body is cut from where it lies.
        while len(piece) > room:
            view = memoryview(piece)
            group.append(view[:room])
            piece = view[room:]
            yield group
            group, room = [], limit
        group.append(piece)
        room -= len(piece)
    if group:
        yield group
