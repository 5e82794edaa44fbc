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
from jsonschema import validators
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7

from tidegate.calls.bounded_validation import MAX_PATTERN, TooCostly, first_violation

#: Limits of a schema; beyond them it counts as one that does not compile.
MAX_BYTES: Final = 256 << 10
MAX_DEPTH: Final = 64
_CACHED: Final = 512
#: They look again at the whole schema by a way of their own, which nothing interrupts: there
#: these match without a limit of time, or double at each level.
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_NOT_BESIDE: Final = ("patternProperties", "dependentSchemas", "$dynamicRef", "prefixItems")


@final
@dataclass(frozen=True, slots=True)
class SchemaInvalid:
    """A schema that cannot be used, and why."""

    reason: str


@final
class CompiledSchema:
    """A schema that is ready to check collected variables."""

    __slots__ = ("_draft", "_schema")

    def __init__(self, draft: type[Validator], schema: dict[str, Any]) -> None:
        self._draft = draft
        self._schema = schema

    def violation(self, variables: dict[str, Any]) -> tuple[str, str] | None:
        """(JSON path, reason) of the first violation in document order, or None.

        Lets other greenlets run; its cost is bounded.
        """
        try:
            error = first_violation(self._draft, self._schema, variables, registry=_REGISTRY)
        except Unresolvable as missing:
            return "$", f"output_schema refers to {missing.ref!r}, which it does not hold"
        except RecursionError:
            return "$", "output_schema refers to itself without end"
        except TooCostly as cost:
            return "$", f"output_schema is too costly to check: {cost}"
        if error is None:
            return None
        return error.json_path, error.message[:500]


def compile_schema(schema: object) -> CompiledSchema | SchemaInvalid:
    """Check and compile one schema. Never raises. Lets other greenlets run; its cost is bounded."""
    if not isinstance(schema, dict):
        return SchemaInvalid("it is no object")
    if len(msgspec.json.encode(schema)) > MAX_BYTES or _depth(schema) > MAX_DEPTH:
        return SchemaInvalid(f"it is over {MAX_BYTES} bytes or {MAX_DEPTH} levels")
    refusal = _not_supported(schema)
    if refusal is not None:
        return SchemaInvalid(refusal)
    draft = validators.validator_for(schema, default=validators.Draft7Validator)
    # Not `draft.check_schema`: that walks the plugin's schema without paying for a step.
    meta = validators.validator_for(draft.META_SCHEMA, default=draft)
    try:
        error = first_violation(
            meta, dict(draft.META_SCHEMA), schema, format_checker=draft.FORMAT_CHECKER
        )
    except TooCostly as cost:
        return SchemaInvalid(f"it is too costly to check: {cost}")
    except (RecursionError, OverflowError) as reason:
        # `format: regex` compiles the patterns; only some of what that raises becomes an error.
        return SchemaInvalid(f"it holds a pattern that cannot be used: {reason}")
    if error is not None:
        return SchemaInvalid(f"{error.json_path}: {error.message[:300]}")
    return CompiledSchema(draft, schema)


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
            # Compiling lets others run. Two calls at once may compile the same schema twice, which
            # costs less than having one wait for the other.
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


def _not_supported(schema: dict[str, Any]) -> str | None:
    """What of ``schema`` would be worked on without a limit: by jsonschema itself, unpaid."""
    if _longest_pattern(schema) > MAX_PATTERN:
        return f"it has a pattern of more than {MAX_PATTERN} characters"
    for keyword in _UNEVALUATED:
        for beside in _NOT_BESIDE if _holds(schema, keyword) else ():
            if _holds(schema, beside):
                return f"{keyword} beside {beside} is not supported"
    return None


def _longest_pattern(value: object) -> int:
    if isinstance(value, list):
        return max(map(_longest_pattern, value), default=0)
    if not isinstance(value, dict):
        return 0
    named = value.get("pattern")
    own = len(named) if isinstance(named, str) else 0
    patterns = value.get("patternProperties")
    keys = max(map(len, patterns), default=0) if isinstance(patterns, dict) else 0
    return max(own, keys, *map(_longest_pattern, value.values()))


def _holds(value: object, keyword: str) -> bool:
    if isinstance(value, dict):
        return keyword in value or any(_holds(item, keyword) for item in value.values())
    return isinstance(value, list) and any(_holds(item, keyword) for item in value)


# An empty schema takes everything, so what stands behind a foreign reference is not checked -
# rather than fetched from wherever a plugin's author pointed.
def _elsewhere(uri: str) -> Resource[Any]:
    return Resource.from_contents({}, default_specification=DRAFT7)


_REGISTRY: Registry[Any] = Registry(retrieve=_elsewhere)  # type: ignore[call-arg]
