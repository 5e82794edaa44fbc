"""multipart/form-data, sans-IO and bounded (RFC 7578, RFC 2046 section 5.1).

    reader = MultipartReader(boundary_of(content_type), limits={"dify_pkg": 52_428_800})
    for piece in body:
        reader.feed(piece)
    parts = reader.finish()          # {"dify_pkg": b"…", "verify_signature": b"true"}

The body is cut as it arrives: no part grows beyond its limit, whatever the body's length. Only
names and contents are kept; file names and content types of parts are not used here.

States: PREAMBLE -> HEAD -> CONTENT -> (HEAD | DONE). After the last boundary nothing is read.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Final, final

from tidegate.errors import BadRequest

#: A part's headers are refused beyond this many bytes, and a body beyond this many parts.
HEAD_LIMIT: Final = 8192
PART_LIMIT: Final = 32
#: What a form needs beside its file: boundaries, headers, small fields.
FORM_LIMIT: Final = 1 << 18
#: Limit of a part that the caller named no limit for.
FIELD_LIMIT: Final = 65536

_BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^;,"\s]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)


class _State(enum.Enum):
    PREAMBLE = 1
    HEAD = 2
    CONTENT = 3
    DONE = 4


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. BadRequest when it is no multipart/form-data."""
    kind, _, parameters = content_type.partition(";")
    # At most 70 characters, as RFC 2046 says: it is searched for in every piece.
    match = _BOUNDARY.search(parameters)
    if kind.strip().lower() != "multipart/form-data" or match is None:
        raise BadRequest("the request must be multipart/form-data with a boundary")
    return (match[1] or match[2]).encode("latin-1", "replace")


@final
class MultipartReader:
    """Cuts one body into its parts. Made for one request; feed, then finish."""

    def __init__(self, boundary: bytes, limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._first = b"--" + boundary
        self._between = b"\r\n--" + boundary
        self._state = _State.PREAMBLE
        self._rest = b""
        self._name = ""
        self._limit = FIELD_LIMIT
        self._content = BytesIO()
        self._parts: dict[str, bytes] = {}
        self._count = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of the body. BadRequest when they cannot belong to one or are too many."""
        self._rest = self._rest + data if self._rest else data
        while self._step():
            pass

    def _step(self) -> bool:
        """Go on by one state; False when more bytes are needed."""
        if self._state is _State.PREAMBLE:
            return self._preamble()
        if self._state is _State.HEAD:
            return self._head()
        if self._state is _State.CONTENT:
            return self._inside()
        self._rest = b""
        return False

    def finish(self) -> dict[str, bytes]:
        """The parts by name; the first of two with the same name counts."""
        if self._state is not _State.DONE:
            raise BadRequest("the multipart body ends before its last boundary")
        return self._parts

    def _preamble(self) -> bool:
        # Some clients begin with an empty line; what is before the first boundary has no meaning.
        start = self._rest.find(self._first)
        if start < 0:
            if len(self._rest) > HEAD_LIMIT:
                raise BadRequest("the multipart body does not begin with its boundary")
            return False
        self._state = _State.HEAD
        self._rest = self._rest[start + len(self._first) :]
        return True

    def _head(self) -> bool:
        """Behind a boundary: ``--`` ends the body, a line end begins the next part's headers."""
        if len(self._rest) < 2:
            return False
        if self._rest.startswith(b"--"):
            self._state = _State.DONE
            return True
        end = self._rest.find(b"\r\n\r\n")
        # More may come. Beyond the limit nothing is waited for: this is where a head without an
        # end would grow.
        if end < 0 and len(self._rest) <= HEAD_LIMIT:
            return False
        if not self._rest.startswith(b"\r\n") or not 0 <= end <= HEAD_LIMIT:
            raise BadRequest("a part of the multipart body has no readable headers")
        self._begin(self._rest[2 : end + 2])
        self._rest = self._rest[end + 4 :]
        return True

    def _begin(self, head: bytes) -> None:
        self._count += 1
        if self._count > PART_LIMIT:
            raise BadRequest(f"the multipart body has more than {PART_LIMIT} parts")
        self._name = _part_name(head)
        self._limit = self._limits.get(self._name, FIELD_LIMIT)
        self._content = BytesIO()
        self._state = _State.CONTENT

    def _inside(self) -> bool:
        end = self._rest.find(self._between)
        if end < 0:
            # The boundary may be cut by the end of this piece: keep what could be its start.
            keep = len(self._between) - 1
            if len(self._rest) > keep:
                self._take(self._rest[:-keep])
                self._rest = self._rest[-keep:]
            return False
        self._take(self._rest[:end])
        self._rest = self._rest[end + len(self._between) :]
        # BytesIO gives its buffer away: a file of 600 MiB is not held twice
        self._parts.setdefault(self._name, self._content.getvalue())
        self._content = BytesIO()
        self._state = _State.HEAD
        return True

    def _take(self, data: bytes) -> None:
        if self._content.tell() + len(data) > self._limit:
            raise BadRequest(f"{self._name or 'a part'} is larger than {self._limit} bytes")
        self._content.write(data)


def _part_name(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            # With a semicolon before it: `filename="x"` ends in `name="x"` as well.
            match = _NAME.search(b";" + value.partition(b";")[2])
            if match is not None:
                return match[1].decode("utf-8", "replace")
    raise BadRequest("a part of the multipart body has no name")
