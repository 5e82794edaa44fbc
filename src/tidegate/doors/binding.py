"""Binding: from path, query and body to one typed form, or a 400 that says why.

A form is a :class:`Form` with its rules. Path parameters win over the body and the query
(spec/http/01 section 1.3); query and JSON are both understood on every method. What cannot be
read is told as it is (D-68): a number that is none, JSON that is broken.

Messages of failed rules have the reference's form, since clients show them:
``Key: 'PageSize' Error:Field validation for 'PageSize' failed on the 'max' tag``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, ClassVar, Final, final, get_args, get_origin, get_type_hints
from urllib.parse import parse_qs

import msgspec

from tidegate.doors.routes import Request
from tidegate.errors import BadRequest, InvalidIdentifier
from tidegate.ids import PluginIdentifier


@final
class BindingRefused(BadRequest):
    """The request does not fit the route's form. Always HTTP 400, also where errors are 200."""


@final
class Rule:
    """One condition on a field. ``tag`` is its name in the message."""

    __slots__ = ("holds", "tag")

    def __init__(self, tag: str, holds: Callable[[Any], bool]) -> None:
        self.tag = tag
        self.holds = holds


def _given(value: Any) -> bool:
    return value is not None if isinstance(value, list | dict) else bool(value)


def _identifier(value: str) -> bool:
    try:
        PluginIdentifier.parse(value)
    except InvalidIdentifier:
        return False
    return True


#: The largest offset that both databases take.
_FURTHEST: Final = (1 << 63) - 1
REQUIRED: Final = Rule("required", _given)
IDENTIFIER: Final = Rule("plugin_unique_identifier", _identifier)


def at_least(limit: int) -> Rule:
    """A number not below ``limit``, or a text or list not shorter."""
    return Rule("min", lambda value: _size(value) >= limit)


def at_most(limit: int) -> Rule:
    """A number not above ``limit``, or a text or list not longer."""
    return Rule("max", lambda value: _size(value) <= limit)


def _size(value: Any) -> int:
    return value if isinstance(value, int) else len(value)


class Form(msgspec.Struct):
    """Base of all forms. ``rules`` of a field are asked in order, the first that fails is told.

    ``items`` are rules for each element of a list.
    """

    rules: ClassVar[dict[str, tuple[Rule, ...]]] = {}
    items: ClassVar[dict[str, tuple[Rule, ...]]] = {}


class PageForm(Form):
    """``page`` from 1, ``page_size`` up to 256: what every list takes."""

    page: int = 0
    page_size: int = 0
    rules = {
        "page": (REQUIRED, at_least(1)),
        "page_size": (REQUIRED, at_least(1), at_most(256)),
    }

    @property
    def offset(self) -> int:
        """Rows before this page."""
        # A page beyond all rows is an empty one, however far; databases refuse longer numbers.
        return min((self.page - 1) * self.page_size, _FURTHEST)


def bind[F: Form](request: Request, form: type[F]) -> F:
    """The request as a form. BindingRefused when it does not fit."""
    values = _from_query(request.query, form) if request.query else {}
    values.update(_from_body(request, form))
    # Last, so that nothing in a body can name another tenant than the path does (T-S11).
    values.update(request.params)
    try:
        # Not strict: a query has only texts, and Dify sends `page=1`.
        bound = msgspec.convert(values, form, strict=False)
    except msgspec.ValidationError as error:
        raise BindingRefused(f"the request does not fit: {error}") from None
    _check(bound)
    return bound


def _from_body(request: Request, form: type[Form]) -> dict[str, Any]:
    kind = request.header("content-type").partition(";")[0].strip().lower()
    # An upload's form is read by its handler, in pieces; here it would be held whole.
    if not kind or kind.startswith("multipart/"):
        return {}
    body = request.body.read()
    if not body.strip():
        return {}
    if kind == "application/json":
        return _by_field(_from_json(body), form)
    if kind == "application/x-www-form-urlencoded":
        return _from_query(parse_qs(body.decode("utf-8", "replace")), form)
    return {}


def _from_json(body: bytes) -> dict[str, Any]:
    try:
        values: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BindingRefused(f"the body is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise BindingRefused("the body must be a JSON object")
    # Null counts as absent, as in the reference: a field's default holds, and a required one is
    # missed.
    return {key: value for key, value in values.items() if value is not None}


def _by_field(values: dict[str, Any], form: type[Form]) -> dict[str, Any]:
    """Values by field; a field's name in capitals is understood where the right one is missing."""
    shown = {shown_name(name): name for name in form.__struct_fields__}
    named = {shown[key]: value for key, value in values.items() if key in shown}
    # The right spelling wins where both are there.
    return {**named, **values}


def _from_query(query: dict[str, list[str]], form: type[Form]) -> dict[str, Any]:
    """Query values by field; a field's name in capitals (``PageSize``) is understood too."""
    values: dict[str, Any] = {}
    for name, is_list in _fields(form).items():
        given = query.get(name) or query.get(shown_name(name))
        if given:
            values[name] = given if is_list else given[0]
    return values


@cache
def _fields(form: type[Form]) -> dict[str, bool]:
    """Field names of a form, and whether each is a list."""
    hints = get_type_hints(form)
    return {name: _takes_list(hints[name]) for name in form.__struct_fields__}


def _takes_list(hint: Any) -> bool:
    return any(get_origin(one) is list for one in (hint, *get_args(hint)))


_INITIALS = {"id": "ID", "url": "URL"}


@cache
def shown_name(field: str) -> str:
    """A field's name as messages show it: ``page_size`` is ``PageSize``, ``id`` is ``ID``."""
    return "".join(_INITIALS.get(part, part.capitalize()) for part in field.split("_"))


def rule_failed(field: str, tag: str) -> str:
    """The message of one failed rule. ``field`` as shown."""
    return f"Key: '{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _texts(getattr(value, name))


def _check(form: Form) -> None:
    # PostgreSQL takes no NUL in a text and SQLite does: else the same request would be a defect of
    # ours on one of them. Free objects (settings, meta) are kept as JSON, which escapes it.
    if any("\0" in text for text in _texts(form)):
        raise BindingRefused("the request holds a NUL character in a text")
    failed = [
        rule_failed(shown_name(name), rule.tag)
        for name, rules in form.rules.items()
        for rule in _first_broken(rules, getattr(form, name))
    ]
    for name, rules in form.items.items():
        for index, value in enumerate(getattr(form, name) or ()):
            failed += [
                rule_failed(f"{shown_name(name)}[{index}]", rule.tag)
                for rule in _first_broken(rules, value)
            ]
    if failed:
        raise BindingRefused("\n".join(failed))


def _first_broken(rules: tuple[Rule, ...], value: Any) -> list[Rule]:
    for rule in rules:
        if not rule.holds(value):
            return [rule]
    return []
