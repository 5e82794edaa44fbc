"""JSON as the same nodes as YAML, so that one table of shapes reads both.

A debugged plugin sends its declarations as JSON; a package has them as YAML files. Types are
kept: a JSON string is quoted text, numbers and booleans are plain scalars, so that what a field
takes is decided by its shape as everywhere else.
"""

from __future__ import annotations

from typing import Any, final

import msgspec

from tidegate.errors import PackageRejected
from tidegate.packages.yaml_nodes import MOST_DEPTH, Mapping, Node, Scalar, Sequence

#: Most values of one declaration; an official plugin has up to 63,128 in all its files.
MOST_NODES = 250_000
#: Commas and brackets, those in texts among them: more are not even decoded.
_MOST_MARKS = 1_000_000


def json_node(content: bytes, what: str) -> Node:
    """``content`` as a node; PackageRejected when it is no JSON, too deep or too much."""
    # Counted in the bytes: decoding millions of empty objects is what takes the time and the
    # memory.
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_MARKS:
        raise PackageRejected(f"{what} has too many values")
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PackageRejected(f"{what} is not valid JSON: {error}") from None
    return _Maker(what).node(value, MOST_DEPTH)


@final
class _Maker:
    """Makes the nodes of one text and counts them as they are made: each takes some time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._left = MOST_NODES

    def node(self, value: Any, depth: int) -> Node:
        if depth <= 0:
            raise PackageRejected(f"{self._what} is nested too deep")
        self._left -= 1
        if self._left < 0:
            raise PackageRejected(f"{self._what} has too many values")
        if isinstance(value, dict):
            items = {key: self.node(item, depth - 1) for key, item in value.items()}
            return Mapping(0, items, None, 1 + sum(item.size for item in items.values()))
        if isinstance(value, list):
            listed = [self.node(item, depth - 1) for item in value]
            return Sequence(0, listed, 1 + sum(item.size for item in listed))
        return _scalar(value)


def _scalar(value: str | float | bool | None) -> Scalar:
    if isinstance(value, str):
        return Scalar(value, plain=False, tag="str", line=0)
    if isinstance(value, bool):
        return Scalar("true" if value else "false", plain=True, tag="", line=0)
    # repr gives the shortest digits that read back as the same number.
    return Scalar("null" if value is None else repr(value), plain=True, tag="", line=0)
