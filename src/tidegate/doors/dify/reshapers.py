"""The few places where a plugin's chunks change on their way to Dify (contract.md section 3).

=============  ====================================================================
BlobMerger     an agent's files: many ``blob_chunk`` become one ``blob``
LabelMender    a model schema without a label gets the model's name (errata 6)
ExpiryMender   credentials that never expire say -1, not null
=============  ====================================================================
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from tidegate.doors.dify.action import Reshaper
from tidegate.doors.routes import Source
from tidegate.errors import CallFailed, MessageTooLarge, ProtocolError
from tidegate.wire.session import UNREADABLE, head_of

#: Largest part of a file, and largest file, that an agent may send (spec/plugin/06 section 4).
PART_LIMIT: Final = 8192
FILE_LIMIT: Final = 15 << 20
#: Files of one call that are open at once, and bytes that wait in them.
OPEN_FILES: Final = 64
OPEN_BYTES: Final = 4 * FILE_LIMIT
#: Longest id of a file in characters: open files are held by it.
_LONGEST_ID: Final = 1024

_encode: Final = msgspec.json.encode
_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode


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
class Reshaped:
    """A call whose chunks go through a :class:`Reshaper`. Follows ``doors.routes.Source``."""

    def __init__(self, source: Source, reshaper: Reshaper) -> None:
        self._source = source
        self._reshaper = reshaper
        self._error: CallFailed | None = None

    @property
    def ready(self) -> bool:
        """See ``Source``."""
        return self._error is not None or self._source.ready

    def take(self) -> list[bytes]:
        """See ``Source``. What came before a chunk that ends the call is given first."""
        while self._error is None:
            bodies = self._source.take()
            if not bodies:
                self._reshaper.finish()
                return []
            passed = self._pass_on(bodies)
            if passed:
                return passed
        self._source.close()
        raise self._error

    def abort(self, error: CallFailed) -> None:
        """See ``Source``."""
        self._source.abort(error)

    def close(self) -> None:
        """See ``Source``."""
        self._source.close()

    def _pass_on(self, bodies: list[bytes]) -> list[bytes]:
        passed = []
        try:
            for body in bodies:
                for chunk in body.split(b"\n"):
                    reshaped = self._reshaper.chunk(chunk)
                    if reshaped is not None:
                        passed.append(reshaped)
        except CallFailed as error:
            self._error = error
        return passed


@final
class BlobMerger:
    """Puts an agent's files together. Memory follows what came, never what was announced (D-20).

    Nothing is skipped: a part that cannot be read, and an end inside a file, end the call.
    """

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}
        self._waiting = 0

    def chunk(self, chunk: bytes) -> bytes | None:
        """See :class:`Reshaper`."""
        if b"blob_chunk" not in chunk or _type_of(chunk) != "blob_chunk":
            return chunk
        try:
            part = _decode_part(chunk)
            content = base64.b64decode(part.message.blob, validate=True)
        except (*UNREADABLE, binascii.Error, ValueError) as error:
            raise ProtocolError(
                f"unmarshal json failed: a part of a file cannot be read: {error}",
                line=head_of(chunk)[:200],
            ) from None
        return self._add(part, content)

    def finish(self) -> None:
        """See :class:`Reshaper`."""
        if self._files:
            raise ProtocolError(
                f"the agent ended inside {len(self._files)} of its files",
                files=sorted(self._files)[:10],
            )

    def _add(self, part: _BlobChunk, content: bytes) -> bytes | None:
        message = part.message
        if len(message.id) > _LONGEST_ID:
            raise _too_large("the id of a file is too long", len(message.id), _LONGEST_ID)
        file = self._files.setdefault(message.id, bytearray())
        if len(content) > PART_LIMIT:
            raise _too_large("single file chunk is too large", len(content), PART_LIMIT)
        size = len(file) + len(content)
        if size > FILE_LIMIT:
            raise _too_large("file is too large", size, FILE_LIMIT)
        self._waiting += len(content)
        if self._waiting > OPEN_BYTES or len(self._files) > OPEN_FILES:
            raise _too_large("file is too large: too many are open", self._waiting, OPEN_BYTES)
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


def _too_large(why: str, size: int, limit: int) -> MessageTooLarge:
    return MessageTooLarge(f"{why}: {size} bytes, at most {limit}", size=size, limit=limit)


@final
class LabelMender:
    """Dify needs ``label.en_US`` of a model; a plugin that has none means the model's name."""

    def __init__(self, model: str) -> None:
        self._model = model

    def chunk(self, chunk: bytes) -> bytes | None:
        """See :class:`Reshaper`."""
        return _mended(chunk, self._mend)

    def finish(self) -> None:
        """See :class:`Reshaper`."""

    def _mend(self, fields: dict[str, Any]) -> bool:
        schema = fields.get("model_schema")
        if schema is None or schema == Raw(b"null"):
            return False
        shown = _fields(schema)
        label = _object(shown.get("label"))
        if label.get("en_US") not in (None, Raw(b'""'), Raw(b"null")):
            return False
        name = msgspec.json.decode(shown.get("model", Raw(b'""'))) or self._model
        fields["model_schema"] = {**shown, "label": {**label, "en_US": name}}
        return True


def _object(raw: Raw | None) -> dict[str, Raw]:
    return {} if raw is None or raw == Raw(b"null") else _fields(raw)


@final
class ExpiryMender:
    """``expires_at`` as Dify takes it: a number, -1 for never."""

    def chunk(self, chunk: bytes) -> bytes | None:
        """See :class:`Reshaper`."""
        return _mended(chunk, self._mend)

    def finish(self) -> None:
        """See :class:`Reshaper`."""

    def _mend(self, fields: dict[str, Any]) -> bool:
        if fields.get("expires_at", Raw(b"null")) != Raw(b"null"):
            return False
        fields["expires_at"] = -1
        return True


def _mended(chunk: bytes, mend: Callable[[dict[str, Any]], bool]) -> bytes:
    """The chunk as ``mend`` leaves its fields; the bytes that came when it changes nothing."""
    try:
        fields: dict[str, Any] = _fields(chunk)
        changed = mend(fields)
    except UNREADABLE:
        return chunk
    return _encode(fields) if changed else chunk
