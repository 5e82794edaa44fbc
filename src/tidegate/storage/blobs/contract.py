"""What every blob store promises."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, final


@final
@dataclass(frozen=True, slots=True)
class Blob:
    """One entry of a listing; ``key`` is the whole key."""

    key: str
    size: int
    modified: datetime


class BlobStore(Protocol):
    """Bytes by key. Safe between greenlets; every method may wait, in gevent.

    So never call one inside a SQLite write transaction. A malformed key is a ValueError: keys
    are built by :class:`tidegate.storage.blobs.Layout` from checked parts.
    """

    def save(self, key: str, data: bytes) -> None:
        """Store, or replace as a whole: whoever loads meanwhile gets the old or the new bytes.

        When it returns the bytes survive a power cut. BlobUnavailable, and the old ones stay,
        when the store does not answer or is full.
        """

    def load(self, key: str) -> bytes:
        """The bytes. BlobMissing when the store holds none, BlobUnavailable otherwise."""

    def exists(self, key: str) -> bool:
        """Whether the store holds one; BlobUnavailable when that cannot be known."""

    def list(self, prefix: str) -> list[Blob]:
        """Everything below a prefix (whole path segments), sorted by key; empty when none."""

    def delete(self, key: str) -> bool:
        """Remove one blob; False when there was none. Never removes more than that one."""


def checked_key(key: str) -> str:
    """``key`` itself; ValueError unless it is plain relative segments joined by ``/``."""
    segments = key.split("/")
    if any(not one or one in (".", "..") or len(one.encode()) > 255 for one in segments):
        raise ValueError(f"not a blob key: {key[:300]!r}")
    if "\\" in key or any(ord(character) < 32 for character in key):
        raise ValueError(f"not a blob key: {key[:300]!r}")
    return key
