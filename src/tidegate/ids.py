"""Identifiers: how they are made, how they are read.

A *plugin id* is ``author/name``; a *unique identifier* adds version and checksum:
``author/name:version@checksum`` (spec/plugin/08 section 2). Row ids are UUIDv7, so that they sort
by time; session ids are random UUIDv4.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import dataclass
from typing import Final, final

from tidegate.errors import InvalidIdentifier

# Strict: parts of it become names of folders, of blobs and of rows.
_IDENTIFIER = re.compile(
    r"(?:(?P<author>[a-z0-9_-]{1,64})/)?(?P<name>[a-z0-9_-]{1,255})"
    r":(?P<version>[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}(?:-\w{1,16})?)"
    r"@(?P<checksum>[a-f0-9]{32,64})",
    re.ASCII,
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}(?:\1[0-9a-fA-F]{4}){2}\1[0-9a-fA-F]{12}")
#: Characters that an identifier may have: the columns of the reference's tables are no wider, and
#: PostgreSQL refuses a row where SQLite would not.
IDENTIFIER_LIMIT: Final = 255


@final
@dataclass(frozen=True, slots=True)
class PluginIdentifier:
    """One exact version of one plugin. ``str()`` gives the form that goes over the wire."""

    author: str
    name: str
    version: str
    checksum: str

    @classmethod
    def parse(cls, text: str) -> PluginIdentifier:
        """Read ``author/name:version@checksum``; InvalidIdentifier when it is none."""
        match = _IDENTIFIER.fullmatch(text)
        if match is None:
            raise InvalidIdentifier(f"plugin_unique_identifier is not valid: {text[:300]}")
        return cls(match["author"] or "", match["name"], match["version"], match["checksum"])

    @property
    def plugin_id(self) -> str:
        """``author/name``, or just the name when there is no author."""
        return f"{self.author}/{self.name}" if self.author else self.name

    def __str__(self) -> str:
        return f"{self.plugin_id}:{self.version}@{self.checksum}"

    @property
    def folder(self) -> str:
        """Relative folder of the extracted package: ``author/name-version@checksum``."""
        return str(self).replace(":", "-")


def plugin_id_of(identifier: str) -> str:
    """``author/name`` of a unique identifier that is known to be valid."""
    return identifier.split(":", 1)[0]


def row_id() -> uuid.UUID:
    """A new UUIDv7 (RFC 9562): 48 bits of milliseconds, then random."""
    millis = time.time_ns() // 1_000_000
    # 48 bits of time first: rows of one minute lie together in an index, whoever made them.
    value = (millis << 80) | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return uuid.UUID(int=value)


def session_id() -> str:
    """A new session id: random UUIDv4 text, unguessable."""
    return str(uuid.uuid4())


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID in its canonical or bare hexadecimal form."""
    # Not by uuid.UUID, which takes braces, dashes anywhere, underscores, blanks and the digits of
    # other scripts as well: ids become parts of paths, and one thing should not have many names.
    return _UUID.fullmatch(text) is not None
