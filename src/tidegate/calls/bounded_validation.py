"""JSON Schema validation whose cost is bounded, however schema and value were written.

Both come from plugins, and validation runs in the process that serves everybody: a pattern that
backtracks, ``allOf`` that doubles at each level or a comparison of two big values would stop it
for good. So every application of a keyword is paid for in steps, others run in between, patterns
have a time limit, and what costs too much ends with :class:`TooCostly` - for that call only.

    keyword                             paid
    any                                 1 + elements of the value + entries of the keyword
    const, enum                         nodes of what is compared with
    uniqueItems                         encoded size of the value, not the square of its length
    pattern, patternProperties, ...     1 + time of each match, which has a limit
    any violation found                 size of its message: it shows the whole value, and
                                        ``anyOf`` over many branches makes one for each
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

import attrs
import gevent
import msgspec
import regex
from jsonschema import exceptions, validators
from jsonschema.protocols import Validator

from tidegate.clock import GIVE_WAY

#: Steps of one validation: some seconds of one core, in small pieces.
MAX_STEPS: Final = 500_000
#: Elements that a keyword may go through at a stretch: some tens of milliseconds.
MAX_ELEMENTS: Final = 50_000
#: Seconds of one match: the only piece that nothing can interrupt otherwise.
MATCH_SECONDS: Final = 0.02
#: Characters of a pattern: compiling has no time limit, and takes some 20 us for each.
MAX_PATTERN: Final = 1000
#: Elements of a value under ``unevaluatedProperties`` or ``unevaluatedItems``, which look each of
#: them up in a list that jsonschema makes without paying.
MAX_UNEVALUATED: Final = 200
#: Steps for a second of matching: about twice what other keywords take for one.
_STEPS_PER_SECOND: Final = 250_000
_LONGEST_UNIQUE: Final = 1 << 20
_PIECE: Final = 500
_SHOWN: Final = 200

Keyword = Callable[..., Iterable[exceptions.ValidationError] | None]


class TooCostly(Exception):
    """Checking would take more than anybody may take. The message says what was in the way."""


class _Meter:
    """Steps of one validation."""

    def __init__(self) -> None:
        self.left = MAX_STEPS
        self.until_rest = _PIECE
        self._charged: exceptions.ValidationError | None = None

    def pay(self, steps: int) -> None:
        if steps > MAX_ELEMENTS:
            raise TooCostly(f"a value or keyword of more than {MAX_ELEMENTS} elements")
        self.spend(steps)

    def charge(self, error: exceptions.ValidationError) -> None:
        # jsonschema hands each violation up through one generator per level, so it passes here once
        # for each: the same object.
        if error is not self._charged:
            self._charged = error
            self.spend(len(error.message) >> 6)

    def spend(self, steps: int) -> None:
        self.left -= steps
        self.until_rest -= steps
        if self.left < 0:
            raise TooCostly(f"more than {MAX_STEPS} steps")
        if self.until_rest < 0:
            self.until_rest = _PIECE
            gevent.sleep(GIVE_WAY)


#: A greenlet has a context of its own, and others validate while one rests.
_meter: ContextVar[_Meter] = ContextVar("meter of the validation that runs")


def first_violation(
    cls: type[Validator], schema: dict[str, Any], value: Any, **options: Any
) -> exceptions.ValidationError | None:
    """The first violation of ``schema`` by ``value`` in document order; None when it fits.

    ``options`` are those of the validator class. Lets other greenlets run. Raises TooCostly, and
    what jsonschema raises about references.
    """
    with _measured():
        return next(bounded(cls)(schema, **options).iter_errors(value), None)


@cache
def bounded(cls: type[Validator]) -> type[Validator]:
    """The validator class ``cls`` with keywords that pay; for use inside ``first_violation``."""
    checks: dict[str, Any] = {**cls.VALIDATORS}
    keywords = {name: _paid(_OWN.get(name, check)) for name, check in checks.items()}
    made: Any = validators.extend(cls, keywords)  # type: ignore[no-untyped-call]
    # jsonschema's own takes another class, whose keywords pay nothing, for a part of the schema
    # that names a draft by `$schema`.
    made.evolve = attrs.evolve
    made.iter_errors = _charged(cls.iter_errors)
    made.descend = _charged(cls.descend)  # type: ignore[attr-defined]
    return made  # type: ignore[no-any-return]


@contextmanager
def _measured() -> Iterator[None]:
    token = _meter.set(_Meter())
    try:
        yield
    finally:
        _meter.reset(token)


def _charged(find: Callable[..., Any]) -> Callable[..., Iterator[exceptions.ValidationError]]:
    """For the ways to a part of the schema: where that is ``false``, no keyword pays for it."""

    def found(*args: Any, **options: Any) -> Iterator[exceptions.ValidationError]:
        for error in find(*args, **options):
            _meter.get().charge(error)
            yield error

    return found


def _paid(check: Keyword) -> Keyword:
    def keyword(
        validator: Any, value: Any, instance: Any, schema: Any
    ) -> Iterator[exceptions.ValidationError]:
        _meter.get().pay(1 + _width(value) + _width(instance))
        yield from check(validator, value, instance, schema) or ()

    return keyword


def _width(value: object) -> int:
    if isinstance(value, dict | list):
        return len(value)
    # A text costs as a comparison of it would: 64 characters for a step.
    return len(value) >> 6 if isinstance(value, str) else 0


def _compared(check: Keyword) -> Keyword:
    """For keywords that compare whole values, however deep."""

    def keyword(
        validator: Any, value: Any, instance: Any, schema: Any
    ) -> Iterable[exceptions.ValidationError]:
        _meter.get().pay(len(msgspec.json.encode(value)) >> 3)
        return check(validator, value, instance, schema) or ()

    return keyword


def _search(pattern: str, text: str) -> bool:
    if len(pattern) > MAX_PATTERN:
        raise TooCostly(f"the pattern {pattern[:_SHOWN]!r} is over {MAX_PATTERN} characters")
    # Paid for besides its limit: matches that each stay just below that make hours together. In
    # CPU time and not wall time: others run in between, and a busy machine must not make schemas
    # invalid.
    started = time.thread_time()
    try:
        return _found(pattern, text)
    finally:
        _meter.get().spend(int((time.thread_time() - started) * _STEPS_PER_SECOND))


def _found(pattern: str, text: str) -> bool:
    try:
        # `re` has no time limit, and its C code holds the interpreter until it is done.
        return regex.search(pattern, text, timeout=MATCH_SECONDS) is not None
    except TimeoutError:
        raise TooCostly(f"the pattern {pattern[:_SHOWN]!r} takes too long") from None
    except regex.error as error:
        raise TooCostly(f"the pattern {pattern[:_SHOWN]!r} cannot be used: {error}") from None


def _pattern(
    validator: Any, pattern: str, instance: Any, schema: Any
) -> Iterator[exceptions.ValidationError]:
    if validator.is_type(instance, "string") and not _search(pattern, instance):
        yield exceptions.ValidationError(f"{instance[:_SHOWN]!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, schema: Any
) -> Iterator[exceptions.ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if _matches(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Any
) -> Iterator[exceptions.ValidationError]:
    if not validator.is_type(instance, "object") or allowed is True:
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    others = [
        name
        for name in instance
        if name not in known and not any(_matches(pattern, name) for pattern in patterns)
    ]
    if allowed is not False:
        for name in others:
            yield from validator.descend(instance[name], allowed, path=name)
    elif others:
        shown = ", ".join(repr(name[:_SHOWN]) for name in others[:10])
        yield exceptions.ValidationError(f"Additional properties are not allowed: {shown}")


def _matches(pattern: str, name: str) -> bool:
    _meter.get().pay(1)
    return _search(pattern, name)


def _unique_items(
    validator: Any, wanted: Any, instance: Any, schema: Any
) -> Iterator[exceptions.ValidationError]:
    if not wanted or not validator.is_type(instance, "array"):
        return
    seen: set[bytes] = set()
    for item in instance:
        # Encoding is quick in C; what follows walks the value in Python and sorts its keys.
        if len(msgspec.json.encode(item)) > _LONGEST_UNIQUE:
            raise TooCostly(f"an item of more than {_LONGEST_UNIQUE} bytes under uniqueItems")
        key = msgspec.json.encode(_as_json(item), order="sorted")
        _meter.get().pay(1 + (len(key) >> 6))
        if key in seen:
            yield exceptions.ValidationError(f"the array holds {key[:_SHOWN].decode()} twice")
            return
        seen.add(key)


def _as_json(value: Any) -> Any:
    """``value`` with numbers that JSON Schema takes for the same written alike: 1 and 1.0."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    # 1 and 1.0 are one number in JSON Schema, and two in JSON text.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _few(check: Keyword) -> Keyword:
    """For keywords whose own work grows with the square of the value."""

    def keyword(
        validator: Any, value: Any, instance: Any, schema: Any
    ) -> Iterable[exceptions.ValidationError]:
        if _width(instance) > MAX_UNEVALUATED:
            raise TooCostly(f"more than {MAX_UNEVALUATED} elements under an unevaluated… keyword")
        return check(validator, value, instance, schema) or ()

    return keyword


_STANDARD: Final[dict[str, Any]] = {**validators.Draft7Validator.VALIDATORS}
_UNEVALUATED: Final = {
    name: validators.Draft202012Validator.VALIDATORS[name]
    for name in ("unevaluatedItems", "unevaluatedProperties")
}
_OWN: Final[dict[str, Keyword]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "const": _compared(_STANDARD["const"]),
    "enum": _compared(_STANDARD["enum"]),
    **{name: _few(check) for name, check in _UNEVALUATED.items()},
}
