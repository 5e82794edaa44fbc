"""Dify's inner API: bodies and length-prefixed frames, without any I/O (spec/plugin/05 section 4).

A request is the plugin's own JSON object with three keys overwritten. An answer is JSON
``{"data", "error"}``, alone or as a stream of frames, little endian:

    0       1       2       4             8         14
    +-------+-------+-------+-------------+---------+------------- - -
    | 0x0f  | 0     | 10    | data length | 0       | JSON {"data", "error"}
    +-------+-------+-------+-------------+---------+------------- - -
      magic  reserved u16    u32            reserved

``data`` stays the bytes that came: unknown fields and big integers survive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, final

import msgspec
from msgspec import Raw

from tidegate.wire.session import UNREADABLE, one_line

MAGIC: Final = 0x0F
HEADER_LENGTH: Final = 10
_HEAD: Final = struct.Struct("<BxHI6x")
_decode_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.encode
#: What "required" of the reference refuses, whatever the field's kind.
_EMPTY: Final = (b"null", b'""')
_LONGEST_EMPTY: Final = 4


class InnerApiError(ValueError):
    """What came is no answer of Dify's inner API, or the answer is an error. Says which."""


class Reply(msgspec.Struct, gc=False):
    """One answer, or one frame of one. ``error`` is empty when there is ``data``."""

    data: Raw = Raw(b"")
    error: str | None = None


_decode_reply: Final = msgspec.json.Decoder(Reply).decode


@final
class FrameReader:
    """Cuts a stream into the JSON of its frames, whatever pieces it comes in."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        """``limit``: largest frame taken, in bytes of JSON."""
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The frames that are whole now, one after the other.

        InnerApiError when the stream is none of frames, after those that were.
        """
        buffer = self._buffer
        buffer += piece
        while len(buffer) >= _HEAD.size:
            end = _HEAD.size + self._length()
            if len(buffer) < end:
                return
            data = bytes(buffer[_HEAD.size : end])
            del buffer[:end]
            yield data

    def finish(self) -> None:
        """The stream ended: InnerApiError when that was within a frame."""
        if self._buffer:
            raise InnerApiError(f"the answer ended {len(self._buffer)} bytes into a frame")

    def _length(self) -> int:
        magic, header, length = _HEAD.unpack_from(self._buffer)
        # A page of a proxy begins otherwise: found here, not after a length of "<htm" bytes.
        if magic != MAGIC:
            raise InnerApiError(f"magic number mismatch: {magic}")
        if header != HEADER_LENGTH:
            raise InnerApiError(f"header length mismatch: {header}")
        # Before anything of it is kept: the length alone could ask for four gigabytes.
        if length > self._limit:
            raise InnerApiError(f"data length is too long: {length}, over {self._limit} bytes")
        return int(length)


def frame(data: bytes) -> bytes:
    """One frame. For tests and for whoever plays Dify."""
    return _HEAD.pack(MAGIC, HEADER_LENGTH, len(data)) + data


def reply_data(text: bytes, *, twice: bool = False) -> bytes:
    """The ``data`` of one answer as one line: a JSON object. InnerApiError when it has none.

    ``twice``: the object stands in a ``data`` of its own once more (fetch_app, encrypt).
    """
    try:
        reply = _decode_reply(text)
        data = bytes(reply.data)
        # Not an error that looks like one: its text would be lost with the outer envelope.
        if twice and not reply.error and data.startswith(b"{"):
            data = bytes(_decode_reply(data).data)
    except UNREADABLE as error:
        raise InnerApiError(f"the answer cannot be read: {error}") from None
    if reply.error:
        raise InnerApiError(f"request failed: {reply.error}")
    if not data or data == b"null":
        raise InnerApiError("data is nil")
    if not data.startswith(b"{"):
        raise InnerApiError("validate request failed: data must be an object")
    return one_line(data)


def request_fields(
    request: bytes,
    required: tuple[str, ...] = (),
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Raw]:
    """The fields of a back-call's request, each as its bytes.

    InnerApiError when it is no object, one of ``required`` is missing, null or empty, or one of
    ``choices`` is given and has none of its values.
    """
    try:
        fields = _decode_fields(request)
    except UNREADABLE as error:
        raise InnerApiError(f"request is not an object: {error}") from None
    missing = [name for name in required if _is_empty(fields.get(name))]
    if missing:
        raise InnerApiError(f"fields are required: {', '.join(missing)}")
    for name, values in (choices or {}).items():
        if not _is_empty(fields.get(name)) and text_field(fields, name) not in values:
            raise InnerApiError(f"{name} takes one of {', '.join(values)}")
    return fields


def _is_empty(value: Raw | None) -> bool:
    # a look at the length first: what is long need not be copied
    return value is None or (len(memoryview(value)) <= _LONGEST_EMPTY and bytes(value) in _EMPTY)


def request_body(fields: dict[str, Raw], *, tenant: str, user: str, type: str) -> bytes:
    """The body for Dify: ``fields`` as they came, but who asks for what is ours to say."""
    ours = {"tenant_id": tenant, "user_id": user, "type": type}
    # Ours last: a plugin that names another tenant or user in its request is overruled.
    return _encode({**fields, **{name: Raw(_encode(value)) for name, value in ours.items()}})


def text_field(fields: dict[str, Raw], name: str) -> str:
    """A field as text; empty when it is missing, null or no text."""
    try:
        return str(msgspec.json.decode(fields.get(name, Raw(b'""')), type=str))
    except msgspec.DecodeError:
        return ""
