"""What an action of a plugin is: its fields, checked without touching the bytes that go on.

``data`` goes to the plugin as the bytes that came: unknown fields, key order and big integers
survive. Only what the SDK cannot do without is put in: see :class:`Field`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

import msgspec
from msgspec import UNSET, Raw

from tidegate.doors.binding import BindingRefused, rule_failed, shown_name
from tidegate.wire.pieces import Pieces
from tidegate.wire.session import long_line

_decode_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
#: Instead of JSON in a :class:`Field`: the key is taken out.
DROP: Final = b"-"


@final
@dataclass(frozen=True, slots=True)
class Field:
    """One field of ``data``. ``type`` is checked without touching the bytes that go on.

    ``required``: a text must not be empty, anything else must not be null.
    ``only``: the values that a text may have, with the tag of the message when it has another.
    ``absent``: JSON written when the field is missing: the reference's zero value, where the
    SDK's models have no default. ``null``: JSON written instead of a null that the SDK refuses,
    ``empty`` instead of an empty text. ``always``: JSON written whatever came.
    """

    name: str
    type: Any
    required: bool = False
    only: tuple[str, ...] = ()
    tag: str = "oneof"
    absent: bytes = b""
    null: bytes = b""
    empty: bytes = b""
    always: bytes = b""


def text(name: str, *, required: bool = False, absent: bytes = b"") -> Field:
    """A text."""
    return Field(name, str, required=required, absent=absent)


def mapping(name: str, *, required: bool = False) -> Field:
    """An object. One that is not required: ``{}`` instead of null; whether it may be missing is
    for the SDK to say.
    """
    return Field(name, dict[str, Raw], required=required, null=b"" if required else b"{}")


def items(name: str, of: Any = Raw, *, required: bool = False, absent: bytes = b"") -> Field:
    """A list."""
    return Field(name, list[of], required=required, absent=absent)


#: Fields that actions of every kind have, and what the shortest of chunks is called.
PROVIDER: Final = text("provider", required=True)
#: An empty type counts as none, and then the SDK has its own default.
CREDENTIAL_TYPE: Final = Field("credential_type", str, null=DROP, empty=DROP)
CREDENTIALS: Final = (mapping("credentials"), CREDENTIAL_TYPE)
RESULT: Final = "{result}"


class Reshaper(Protocol):
    """Changes the chunks of one call on their way to the caller. Made per call."""

    def chunk(self, chunk: bytes) -> bytes | None:
        """What goes on instead of it; None when nothing does yet. CallFailed ends the call."""

    def finish(self) -> None:
        """The plugin ended normally. CallFailed when that was too early."""


@final
@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table.

    ``chunk`` is what one event carries, for the docs; ``unary`` actions send one.
    ``rules`` names the field that selects the declared output schema, ``declared`` the list in
    the declaration that has it, when the chunks are messages with a type.
    ``plain``: answered with one JSON envelope, only for tenants.
    ``reshaper`` makes what changes the chunks of a call, where something has to.
    ``shape`` is the type that ``data`` is decoded as.
    """

    path: str
    type: str
    action: str
    fields: tuple[Field, ...]
    chunk: str
    unary: bool = True
    rules: str = ""
    declared: str = ""
    plain: bool = False
    reshaper: Callable[[Data], Reshaper] | None = None
    shape: Any = field(init=False, repr=False, compare=False, default=None)
    _decode: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        shape = msgspec.defstruct(
            self.action,
            # Everything may be null or absent for the decoder: which of these is an error is told
            # by the field's rules, in the words that Dify knows, and for all fields at once.
            [(one.name, one.type | None | msgspec.UnsetType, UNSET) for one in self.fields],
            gc=False,
        )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "_decode", msgspec.json.Decoder(shape).decode)

    def read(self, data: Raw) -> Data:
        """``data`` of a request, checked. BindingRefused names every field that does not fit."""
        try:
            # Types are checked on the decoded copy and thrown away; what goes on is `data` itself.
            values = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BindingRefused(f"data does not fit {self.path}: {error}") from None
        failed: list[str] = []
        fill: dict[str, bytes] = {}
        for one in self.fields:
            value = getattr(values, one.name)
            written = _written(one, value)
            if written:
                fill[one.name] = written
            elif one.required and (value is UNSET or value is None or value == ""):
                failed.append(_failed(one, "required"))
            elif one.only and value not in one.only:
                failed.append(_failed(one, one.tag))
        if failed:
            raise BindingRefused("\n".join(failed))
        # Only where something must be put in is the object written anew, field by field; the
        # values keep their bytes even then.
        return Data(_filled(data, fill) if fill else long_line(memoryview(data)), values)


@final
@dataclass(frozen=True, slots=True)
class Data:
    """Checked ``data``: the JSON object for the plugin's line, and its fields by name."""

    line: bytes | Pieces
    values: Any

    def text(self, name: str) -> str:
        """A text field that the action requires."""
        return str(getattr(self.values, name))


def _written(one: Field, value: Any) -> bytes:
    """What is written for a field instead of ``value``; empty when it stays."""
    if value is UNSET:
        return one.absent or one.always
    if value is None:
        return one.null or one.always
    if value == "" and one.empty:
        return one.empty
    return one.always


def _failed(one: Field, tag: str) -> str:
    shown = shown_name(one.name)
    return rule_failed(shown, tag).replace(f"Key: '{shown}'", f"Key: 'Data.{shown}'", 1)


def _filled(data: Raw, fill: dict[str, bytes]) -> bytes | Pieces:
    """``data`` with the fields that the SDK misses; what came keeps bytes and order."""
    fields = _decode_fields(data)
    for name, written in fill.items():
        if written == DROP:
            fields.pop(name, None)
        else:
            fields[name] = Raw(written)
    return long_line(memoryview(msgspec.json.encode(fields)))
