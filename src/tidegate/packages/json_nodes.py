"""JSON as the same nodes as YAML, so that one table of shapes reads both.

A debugged plugin sends its declarations as JSON; a package has them as YAML files. Types are
kept: a JSON string is quoted text, numbers and booleans are plain scalars, so that what a field
takes is decided by its shape as everywhere else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.errors import PackageRejected
from tidegate.packages.yaml_nodes import MOST_DEPTH, Mapping, Node, Scalar, Sequence

#: Most values of one declaration; an official plugin has up to 63,128 in all its files.
MOST_NODES = 250_000


def json_node(content: bytes, what: str) -> Node:
    """``content`` as a node; PackageRejected when it is no JSON, too deep or too much."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PackageRejected(f"{what} is not valid JSON: {error}") from None
    node = _node(value, what, MOST_DEPTH)
    if node.size > MOST_NODES:
        raise PackageRejected(f"{what} has too many values")
    return node


def _node(value: Any, what: str, depth: int) -> Node:
    if depth <= 0:
        raise PackageRejected(f"{what} is nested too deep")
    if isinstance(value, dict):
        items = {key: _node(item, what, depth - 1) for key, item in value.items()}
        return Mapping(0, items, None, 1 + sum(item.size for item in items.values()))
    if isinstance(value, list):
        listed = [_node(item, what, depth - 1) for item in value]
        return Sequence(0, listed, 1 + sum(item.size for item in listed))
    return _scalar(value)


def _scalar(value: str | float | bool | None) -> Scalar:
    if isinstance(value, str):
        return Scalar(value, plain=False, tag="str", line=0)
    if isinstance(value, bool):
        return Scalar("true" if value else "false", plain=True, tag="", line=0)
    return Scalar("null" if value is None else repr(value), plain=True, tag="", line=0)
