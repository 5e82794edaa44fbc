"""Files put together: many ``blob_chunk`` become one ``blob`` (spec/plugin/06 section 4).

The SDK cuts every file into parts of 8 KiB. Dify puts those of tools together itself; those of an
agent strategy it wants whole, and so does a plugin whose back-call to a tool is answered here.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, final

import msgspec
from msgspec import Raw

from tidegate.errors import MessageTooLarge, ProtocolError
from tidegate.wire.session import UNREADABLE, head_of

#: Largest part of a file: the SDK cuts them so.
PART_LIMIT: Final = 8192
#: Largest file of an agent.
FILE_LIMIT: Final = 15 << 20
#: Largest file of a tool, as Dify has it.
TOOL_FILE_LIMIT: Final = 30 << 20
#: Files of one call that are open at once, and bytes that wait in them.
OPEN_FILES: Final = 64
OPEN_BYTES: Final = 60 << 20
#: Longest id of a file in characters: open files are held by it.
_LONGEST_ID: Final = 1024
_MANY_OPEN: Final = "file is too large: too many are open"

_encode: Final = msgspec.json.encode


class _Part(msgspec.Struct):
    id: str
    blob: str
    end: bool
    total_length: float | None = None


class _BlobChunk(msgspec.Struct):
    message: _Part
    meta: Raw = Raw(b"null")


class _Typed(msgspec.Struct):
    type: str = ""


_decode_type: Final = msgspec.json.Decoder(_Typed).decode
_decode_part: Final = msgspec.json.Decoder(_BlobChunk).decode


@final
class BlobMerger:
    """Puts the files of one call together.

    Memory follows what came, never what was announced (D-20).
    Nothing is skipped: a part that cannot be read, and an end inside a file, end the call.
    """

    def __init__(self, limit: int = FILE_LIMIT) -> None:
        """``limit``: largest file taken, in bytes."""
        self._limit = limit
        self._files: dict[str, bytearray] = {}
        self._waiting = 0

    def chunk(self, chunk: bytes) -> bytes | None:
        """The chunk that goes on in its place; None while a file is not whole."""
        # The bytes first: an agent's chunks are nearly all text, and this decodes none of them.
        if b"blob_chunk" not in chunk or _type_of(chunk) != "blob_chunk":
            return chunk
        try:
            part = _decode_part(chunk)
            # Strict: else every character that is none is skipped, and the file has a hole.
            content = base64.b64decode(part.message.blob, validate=True)
        except (*UNREADABLE, binascii.Error, ValueError) as error:
            raise ProtocolError(
                f"unmarshal json failed: a part of a file cannot be read: {error}",
                line=head_of(chunk)[:200],
            ) from None
        return self._add(part, content)

    def finish(self) -> None:
        """After the last chunk: ProtocolError when a file is not whole."""
        if self._files:
            raise ProtocolError(
                f"the plugin ended inside {len(self._files)} of its files",
                files=sorted(self._files)[:10],
            )

    def _add(self, part: _BlobChunk, content: bytes) -> bytes | None:
        message = part.message
        if len(message.id) > _LONGEST_ID:
            why = "the id of a file is too long"
            raise _too_large(why, len(message.id), _LONGEST_ID, "characters")
        # `total_length` is not looked at: the reference allocates what is announced (D-20).
        file = self._files.setdefault(message.id, bytearray())
        if len(content) > PART_LIMIT:
            raise _too_large("single file chunk is too large", len(content), PART_LIMIT)
        size = len(file) + len(content)
        if size > self._limit:
            raise _too_large("file is too large", size, self._limit)
        self._waiting += len(content)
        if self._waiting > OPEN_BYTES:
            raise _too_large(_MANY_OPEN, self._waiting, OPEN_BYTES)
        if len(self._files) > OPEN_FILES:
            raise _too_large(_MANY_OPEN, len(self._files), OPEN_FILES, "files")
        file += content
        if not message.end:
            return None
        del self._files[message.id]
        self._waiting -= size
        blob = base64.b64encode(file).decode()
        return _encode({"type": "blob", "message": {"blob": blob}, "meta": part.meta})


def _type_of(chunk: bytes) -> str:
    try:
        return _decode_type(chunk).type
    except UNREADABLE:
        return ""


def _too_large(why: str, size: int, limit: int, unit: str = "bytes") -> MessageTooLarge:
    return MessageTooLarge(f"{why}: {size} {unit}, at most {limit}", size=size, limit=limit)
