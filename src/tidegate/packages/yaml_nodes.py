"""YAML as a tree of nodes whose scalars are still text: what a field means, its schema decides.

A loader that types scalars by itself turns ``version: 1.10`` into 1.1 and ``no`` into False
(spec/plugin/08 section 8). Here a document is composed from the parser's events, bounded in
bytes, depth and nodes - counted as if every alias were written out, so that a bomb of aliases
costs no more than its text (T-S4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn, final

import yaml

from tidegate.errors import PackageRejected

#: Largest YAML file in bytes. The largest of an official plugin has 0.1 MB.
MOST_BYTES = 2 << 20
#: Deepest nesting.
MOST_DEPTH = 100
#: Most nodes of one document, aliases written out; an official plugin has up to 9,617. A long
#: text counts as several: fifty thousand aliases of a text of 1 MB would be 50 GB of JSON.
MOST_NODES = 50_000
TEXT_PER_NODE = 256
#: The parser compares each of these directives with all before it, and nothing interrupts it.
_MOST_TAG_DIRECTIVES = 100

# libyaml where it is built in: many times faster, and the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@final
@dataclass(slots=True)
class Scalar:
    """Text as written. ``plain`` when no quotes were used; ``tag`` when one was given."""

    text: str
    plain: bool
    tag: str
    line: int
    size: int = 1


@final
@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)
    size: int = 1


@final
@dataclass(slots=True)
class Mapping:
    """A mapping; keys are text, in the order of the file, merged keys last.

    ``twice`` names a key that is there twice. Only whoever reads the mapping may mind: published
    plugins have such keys in parts that nobody reads.
    """

    line: int
    items: dict[str, Node] = field(default_factory=dict)
    twice: str | None = None
    size: int = 1


Node = Scalar | Sequence | Mapping


def compose(content: bytes, file: str) -> Node | None:
    """The first document of a YAML file; None when it is empty.

    Raises PackageRejected with file and line for what is no YAML, too large, too deep, an alias
    into itself, a key that is no text.
    """
    if len(content) > MOST_BYTES:
        raise PackageRejected(f"{file} is too large: {len(content)} bytes, at most {MOST_BYTES}")
    try:
        # With the mark that some editors put in front.
        text = content.decode("utf-8-sig")
        if text.count("%TAG") > _MOST_TAG_DIRECTIVES:
            raise PackageRejected(f"{file} has more than {_MOST_TAG_DIRECTIVES} %TAG directives")
        return _Composer(file).document(yaml.parse(text, Loader=_LOADER))
    except UnicodeDecodeError:
        raise PackageRejected(f"{file} is not valid UTF-8") from None
    except yaml.YAMLError as error:
        raise PackageRejected(f"{file} is not valid YAML: {_one_line(error)}") from None


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f" (line {mark.line + 1})" if mark else ""
    return " ".join(str(problem).split())[:300] + where


@final
@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    merges: list[Node] = field(default_factory=list)


_STANDARD_TAG = "tag:yaml.org,2002:"


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    plain = event.style in (None, "")
    tag = event.tag or ""
    size = 1 + len(event.value) // TEXT_PER_NODE
    return Scalar(event.value, plain, tag.removeprefix(_STANDARD_TAG), _line_of(event), size)


def _line_of(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


@final
class _Composer:
    """Turns the events of one document into nodes, without recursion."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, Node] = {}
        # Collections that are still open: node, its anchor, and the key that waits for a value.
        self._open: list[_Open] = []

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        for event in events:
            node = self._node_of(event)
            if node is not None and not self._open:
                return node
        return None

    def _node_of(self, event: yaml.Event) -> Node | None:
        """The node that this event completes, placed where it belongs."""
        match event:
            case yaml.ScalarEvent():
                node: Node = _scalar(event)
                self._remember(event.anchor, node)
            case yaml.AliasEvent():
                node = self._aliased(event)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._begin(event)
                return None
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                top = self._open.pop()
                node = top.node
                if isinstance(node, Mapping):
                    self._merge(node, top.merges)
                self._remember(top.anchor, node)
            case _:
                return None
        if self._open:
            self._place(node, _line_of(event))
        return node

    def _begin(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        line = _line_of(event)
        if len(self._open) >= MOST_DEPTH:
            self._refuse("is nested too deep", line)
        kind = Sequence if isinstance(event, yaml.SequenceStartEvent) else Mapping
        self._open.append(_Open(kind(line), event.anchor))

    def _place(self, node: Node, line: int) -> None:
        top = self._open[-1]
        top.node.size += node.size
        # While it grows and not at its end: an alias adds its whole size at once, without anything
        # being copied.
        if top.node.size > MOST_NODES:
            self._refuse("has too many values (aliases written out)", line)
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
        elif top.key is None:
            top.key = self._key(node, line)
        else:
            self._put(top, top.key, node)
            top.key = None

    def _key(self, node: Node, line: int) -> Scalar:
        if not isinstance(node, Scalar):
            self._refuse("has a key that is no text", line)
        return node

    def _put(self, top: _Open, key: Scalar, node: Node) -> None:
        assert isinstance(top.node, Mapping)  # noqa: S101 - told apart in _place
        if key.plain and key.text == "<<":
            top.merges.append(node)
            return
        if key.text in top.node.items:
            top.node.twice = key.text
        top.node.items[key.text] = node

    def _merge(self, node: Mapping, merges: list[Node]) -> None:
        """Take over what ``<<`` names; keys of the mapping itself win, then the first one named."""
        for merge in merges:
            for source in merge.items if isinstance(merge, Sequence) else [merge]:
                if not isinstance(source, Mapping):
                    self._refuse("merges what is no mapping", node.line)
                for key, value in source.items.items():
                    node.items.setdefault(key, value)

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            # Unknown, or still open: a value inside itself has no end.
            name = (event.anchor or "")[:100]
            self._refuse(f"has an alias to nothing: {name}", _line_of(event))
        return node

    def _refuse(self, why: str, line: int) -> NoReturn:
        raise PackageRejected(f"{self._file} {why} (line {line})")
