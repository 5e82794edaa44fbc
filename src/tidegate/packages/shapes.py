"""Shapes: how a YAML node becomes a field of a declaration.

A shape takes a node - None when the field is absent or null - and returns what stands in the
JSON. A declaration is written as a table of them::

    OPTION = record({"value": text, "label": I18N, "icon": text})

Unknown keys are ignored; a value of the wrong kind is a :class:`Misfit` that collects its path on
the way up. Lengths and lists of allowed words are *not* checked here, because the reference does
not check them in packages either (spec/plugin/08 section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Mapping as Fields
from typing import Any

from tidegate.packages.scalars import boolean_of, decimal_of, is_null, number_of, resolve
from tidegate.packages.yaml_nodes import Mapping, Node, Scalar, Sequence

Json = Any  # what the JSON encoder takes: the values of a declaration have no narrower type
Shape = Callable[[Node | None], Json]


class Misfit(Exception):
    """A value that its field does not take. Raised by shapes; files turn it into a rejection."""

    def __init__(self, takes: str, node: Node) -> None:
        super().__init__(takes)
        self.takes = takes
        self.line = node.line
        self.path: list[str] = []

    def __str__(self) -> str:
        where = "".join(reversed(self.path)).removeprefix(".") or "the file"
        # JSON has no lines
        return f"{where} {self.takes} (line {self.line})" if self.line else f"{where} {self.takes}"


def real(node: Node | None) -> Node | None:
    """``node``, or None when it is an explicit null."""
    return None if isinstance(node, Scalar) and is_null(node) else node


def _scalar(node: Node, takes: str) -> Scalar:
    if not isinstance(node, Scalar):
        raise Misfit(takes, node)
    return node


def optional_text(node: Node | None) -> str | None:
    """Text as written (``1.10`` stays ``1.10``), or null."""
    return None if real(node) is None else text(node)


def text(node: Node | None) -> str:
    """Text as written; empty when absent."""
    if node is None:
        return ""
    scalar = _scalar(node, "takes text")
    return "" if is_null(scalar) else scalar.text


def flag(node: Node | None) -> bool:
    """true or false; false when absent."""
    if real(node) is None:
        return False
    try:
        return boolean_of(_scalar(node, "takes true or false"))  # type: ignore[arg-type]
    except ValueError as error:
        raise Misfit(str(error), node) from None  # type: ignore[arg-type]


def number(node: Node | None) -> int | float | None:
    """A number, or null."""
    node = real(node)
    if node is None:
        return None
    try:
        value = number_of(_scalar(node, "takes a number").text)
    except ValueError as error:
        raise Misfit(str(error), node) from None
    if value is None:
        raise Misfit("takes a number", node)
    return value


def whole(node: Node | None) -> int | None:
    """A whole number, or null."""
    value = number(node)
    return None if value is None else int(value)


def amount(node: Node | None) -> int:
    """A whole number; 0 when absent."""
    return whole(node) or 0


def decimal(node: Node | None) -> str:
    """A decimal number as text; ``0`` when absent."""
    node = real(node)
    if node is None:
        return "0"
    try:
        return decimal_of(_scalar(node, "takes a decimal number").text)
    except ValueError as error:
        raise Misfit(str(error), node) from None


def anything(node: Node | None) -> Json:
    """A free value: whatever is written, typed by YAML 1.2; null when absent."""
    match node:
        case None:
            return None
        case Scalar():
            try:
                return resolve(node)
            except ValueError as error:
                raise Misfit(str(error), node) from None
        case Sequence():
            return [anything(item) for item in node.items]
        case Mapping():
            return {key: anything(item) for key, item in members(node).items()}


def free_mapping(node: Node | None) -> dict[str, Json] | None:
    """A free mapping, or null."""
    node = real(node)
    if node is None:
        return None
    if not isinstance(node, Mapping):
        raise Misfit("takes a mapping", node)
    mapping: dict[str, Json] = anything(node)
    return mapping


def nullable(shape: Shape) -> Shape:
    """``shape``, but null when absent."""
    return lambda node: None if real(node) is None else shape(node)


def or_empty(shape: Shape) -> Shape:
    """``shape`` of a list, but ``[]`` instead of null."""
    return lambda node: shape(node) or []


def or_null(shape: Shape) -> Shape:
    """``shape``, but null instead of what is empty or false."""
    return lambda node: shape(node) or None


def list_of(shape: Shape) -> Shape:
    """A list of ``shape``; null when absent."""

    def decode(node: Node | None) -> Json:
        node = real(node)
        if node is None:
            return None
        if not isinstance(node, Sequence):
            raise Misfit("takes a list", node)
        return [inside(f"[{index}]", shape, item) for index, item in enumerate(node.items)]

    return decode


def record(fields: Fields[str, Shape], *, omit: Collection[str] = ()) -> Shape:
    """An object with these fields. Those in ``omit`` are left out when they would be null."""
    shapes = [(name, f".{name}", shape, name in omit) for name, shape in fields.items()]

    def decode(node: Node | None) -> Json:
        items = members(node)
        values = {}
        for name, step, shape, optional in shapes:
            value = inside(step, shape, items.get(name))
            if value is not None or not optional:
                values[name] = value
        return values

    return decode


def members(node: Node | None) -> dict[str, Node]:
    """The members of a mapping; none when it is absent. Misfit for anything else."""
    node = real(node)
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        raise Misfit("takes a mapping", node)
    if node.twice is not None:
        raise Misfit(f"has the key {node.twice[:100]!r} twice", node)
    return node.items


def inside(step: str, shape: Shape, node: Node | None) -> Json:
    """``shape`` of ``node``, with ``step`` (``.name``, ``[3]``) on the path of its misfits."""
    try:
        return shape(node)
    except Misfit as misfit:
        misfit.path.append(step)
        raise


_LANGUAGE = or_null(text)
I18N = record(
    {"en_US": text, "ja_JP": _LANGUAGE, "zh_Hans": _LANGUAGE, "pt_BR": _LANGUAGE},
    omit=("ja_JP", "zh_Hans", "pt_BR"),
)
OPTIONAL_I18N = nullable(I18N)
