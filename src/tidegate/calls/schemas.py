"""Compiled output schemas: each once per plugin version and tool, bounded, never fetched.

The draft is what ``$schema`` names, else 7. A ``$ref`` to another document is not followed over
the network: what it stands for is not checked. A ``$ref`` inside the schema that leads nowhere
makes the schema invalid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, final

import msgspec
from jsonschema import exceptions, validators
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7

#: Limits of a schema; beyond them it counts as one that does not compile.
MAX_BYTES: Final = 256 << 10
MAX_DEPTH: Final = 64
_CACHED: Final = 512


@final
@dataclass(frozen=True, slots=True)
class SchemaInvalid:
    """A schema that cannot be used, and why."""

    reason: str


@final
class CompiledSchema:
    """A schema that is ready to check collected variables."""

    __slots__ = ("_validator",)

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    def violation(self, variables: dict[str, Any]) -> tuple[str, str] | None:
        """(JSON path, reason) of the first violation in document order, or None."""
        try:
            error = exceptions.best_match(self._validator.iter_errors(variables))
        except Unresolvable as missing:
            return "$", f"output_schema refers to {missing.ref!r}, which it does not hold"
        except RecursionError:
            return "$", "output_schema refers to itself without end"
        if error is None:
            return None
        return error.json_path, error.message[:500]


def compile_schema(schema: object) -> CompiledSchema | SchemaInvalid:
    """Check and compile one schema. Never raises."""
    if not isinstance(schema, dict):
        return SchemaInvalid("it is no object")
    if len(msgspec.json.encode(schema)) > MAX_BYTES or _depth(schema) > MAX_DEPTH:
        return SchemaInvalid(f"it is over {MAX_BYTES} bytes or {MAX_DEPTH} levels")
    cls = validators.validator_for(schema, default=validators.Draft7Validator)
    try:
        cls.check_schema(schema)
    except exceptions.SchemaError as error:
        return SchemaInvalid(f"{error.json_path}: {error.message[:300]}")
    return CompiledSchema(cls(schema, registry=_REGISTRY))


@final
class SchemaCache:
    """Least recently used schemas of this process, by (identifier, tool)."""

    def __init__(self, size: int = _CACHED) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, str], CompiledSchema | SchemaInvalid] = OrderedDict()

    def get(self, key: tuple[str, str], schema: object) -> CompiledSchema | SchemaInvalid:
        """The compiled schema of ``key``; compiled when it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = compile_schema(schema)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        return entry


def _depth(value: object) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        deepest = max(deepest, level)
        if level > MAX_DEPTH:
            break
        children = item.values() if isinstance(item, dict) else item
        if isinstance(children, Iterable) and not isinstance(children, str):
            todo += [(child, level + 1) for child in children]
    return deepest


def _elsewhere(uri: str) -> Resource[Any]:
    return Resource.from_contents({}, default_specification=DRAFT7)


_REGISTRY: Registry[Any] = Registry(retrieve=_elsewhere)  # type: ignore[call-arg]
