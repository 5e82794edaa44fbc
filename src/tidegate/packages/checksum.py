"""The checksum of a package: what makes two packages the same (spec/plugin/08 section 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping


def digests_of(contents: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """SHA-256 of every content by name, in the order given."""
    return {name: hashlib.sha256(content).digest() for name, content in contents}


def checksum_of(digests: Mapping[str, bytes]) -> str:
    """64 hexadecimal characters over names and contents; order, times and packing do not count."""
    whole = hashlib.sha256()
    for name in sorted(digests, key=str.encode):
        whole.update(hashlib.sha256(name.encode()).digest() + digests[name])
    return whole.hexdigest()
