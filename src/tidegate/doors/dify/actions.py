"""The actions of plugins that Dify's dispatch routes serve: one row each.

A row names the path, the plugin protocol's type and action, the fields that the request's
``data`` may have (spec/http/01 section 5, spec/plugin/04) and what the chunks are. Both dispatch
prefixes are built from it. Adding an action is adding a row to :data:`ACTIONS`.

``data`` goes to the plugin as the bytes that came: unknown fields, key order and big integers
survive. Only what the SDK cannot do without is put in: see :class:`Field`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, final

import msgspec
from msgspec import UNSET, Raw

from tidegate.doors.binding import BindingRefused, rule_failed, shown_name
from tidegate.wire.session import one_line

_decode_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_MODEL_TYPES: Final = (
    "llm",
    "text-embedding",
    "rerank",
    "speech2text",
    "moderation",
    "tts",
    "text2img",
    "multimodal-embedding",
    "multimodal-rerank",
)


class ToolChoice(msgspec.Struct):
    """``tool_choice`` of an LLM request; a mode of ``tool`` needs the tool's name."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None

    def __post_init__(self) -> None:
        if self.mode == "tool" and not (self.name or "").strip():
            raise ValueError("mode tool needs a name")


class Tool(msgspec.Struct):
    """One entry of ``tools`` of an LLM request; what it says otherwise is the plugin's."""

    name: Annotated[str, msgspec.Meta(min_length=1)]


@final
@dataclass(frozen=True, slots=True)
class Field:
    """One field of ``data``. ``type`` is checked without touching the bytes that go on.

    ``required``: a text must not be empty, anything else must not be null.
    ``only``: the values that a text may have, with the tag of the message when it has another.
    ``absent``: JSON written when the field is missing: the reference's zero value, where the
    SDK's models have no default. ``null``: JSON written instead of a null that the SDK refuses.
    """

    name: str
    type: Any
    required: bool = False
    only: tuple[str, ...] = ()
    tag: str = "oneof"
    absent: bytes = b""
    null: bytes = b""


def text(name: str, *, required: bool = False, absent: bytes = b"") -> Field:
    """A text."""
    return Field(name, str, required=required, absent=absent)


def mapping(name: str) -> Field:
    """An object: ``{}`` instead of null. Whether it may be missing is for the SDK to say."""
    return Field(name, dict[str, Raw], null=b"{}")


def items(name: str, of: Any = Raw, *, required: bool = False, absent: bytes = b"") -> Field:
    """A list."""
    return Field(name, list[of], required=required, absent=absent)


PROVIDER: Final = text("provider", required=True)
CREDENTIALS: Final = (mapping("credentials"), text("credential_type"))
MODEL: Final = (PROVIDER, text("model", required=True), *CREDENTIALS)
ANY_MODEL_TYPE: Final = Field("model_type", str, required=True, only=_MODEL_TYPES, tag="model_type")


def model_type(value: str) -> Field:
    """``model_type`` that must be ``value``."""
    return Field("model_type", str, required=True, only=(value,), tag="eq")


@final
@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table.

    ``chunk`` is what one event carries, for the docs; ``unary`` actions send one.
    ``rules`` names the field that selects the declared output schema, when the action has one.
    """

    path: str
    type: str
    action: str
    fields: tuple[Field, ...]
    chunk: str
    unary: bool = True
    rules: str = ""
    _decode: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        shape = msgspec.defstruct(
            "Data",
            [(one.name, one.type | None | msgspec.UnsetType, UNSET) for one in self.fields],
            gc=False,
        )
        object.__setattr__(self, "_decode", msgspec.json.Decoder(shape).decode)

    def read(self, data: Raw) -> Data:
        """``data`` of a request, checked. BindingRefused names every field that does not fit."""
        try:
            values = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BindingRefused(f"data does not fit {self.path}: {error}") from None
        failed: list[str] = []
        fill: dict[str, Raw] = {}
        for one in self.fields:
            value = getattr(values, one.name)
            if value is UNSET and one.absent:
                fill[one.name] = Raw(one.absent)
            elif value is None and one.null:
                fill[one.name] = Raw(one.null)
            elif one.required and (value is UNSET or value is None or value == ""):
                failed.append(_failed(one, "required"))
            elif one.only and value not in one.only:
                failed.append(_failed(one, one.tag))
        if failed:
            raise BindingRefused("\n".join(failed))
        return Data(_filled(data, fill) if fill else one_line(bytes(data)), values)


@final
@dataclass(frozen=True, slots=True)
class Data:
    """Checked ``data``: the JSON object for the plugin's line, and its fields by name."""

    line: bytes
    values: Any

    def text(self, name: str) -> str:
        """A text field that the action requires."""
        return str(getattr(self.values, name))


def _failed(one: Field, tag: str) -> str:
    shown = shown_name(one.name)
    return rule_failed(shown, tag).replace(f"Key: '{shown}'", f"Key: 'Data.{shown}'", 1)


def _filled(data: Raw, fill: dict[str, Raw]) -> bytes:
    """``data`` with the fields that the SDK misses; what came keeps bytes and order."""
    return one_line(msgspec.json.encode({**_decode_fields(data), **fill}))


_MESSAGE = "{type, message, meta}"

ACTIONS: Final[tuple[Action, ...]] = (
    Action(
        "tool/invoke",
        "tool",
        "invoke_tool",
        (PROVIDER, text("tool", required=True), mapping("tool_parameters"), *CREDENTIALS),
        _MESSAGE,
        unary=False,
        rules="tool",
    ),
    Action(
        "tool/validate_credentials",
        "tool",
        "validate_tool_credentials",
        (PROVIDER, mapping("credentials")),
        "{result}",
    ),
    Action(
        "llm/invoke",
        "model",
        "invoke_llm",
        (
            *MODEL,
            model_type("llm"),
            mapping("model_parameters"),
            items("prompt_messages"),
            items("tools", Tool, absent=b"null"),
            Field("tool_choice", ToolChoice),
            items("stop", absent=b"null"),
            Field("json_schema", dict[str, Raw]),
            Field("stream", bool, absent=b"false", null=b"false"),
        ),
        "{model, system_fingerprint, delta, prompt_messages}",
        unary=False,
    ),
    Action(
        "model/validate_provider_credentials",
        "model",
        "validate_provider_credentials",
        (PROVIDER, *CREDENTIALS),
        "{result, credentials}",
    ),
    Action(
        "model/validate_model_credentials",
        "model",
        "validate_model_credentials",
        (*MODEL, ANY_MODEL_TYPE),
        "{result, credentials}",
    ),
    Action(
        "model/schema",
        "model",
        "get_ai_model_schemas",
        (*MODEL, ANY_MODEL_TYPE),
        "{model_schema}",
    ),
)
