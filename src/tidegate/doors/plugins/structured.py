"""Structured output: a language model's answer as an object that fits a schema.

A model that declares a parameter ``json_schema`` is given the schema; any other is told in words.
Either way its text is read as JSON, and one more chunk carries the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from tidegate.errors import BackCallFailed

#: A text that is longer is no structured output.
_MOST: Final = 8 << 20
_SCHEMA: Final = "json_schema"
_WORDS: Final = (
    "Answer with one JSON object and nothing else: no prose, no code fence. "
    "It must be valid against this JSON schema:\n"
)


class _Message(msgspec.Struct):
    content: Any = ""


class _Delta(msgspec.Struct):
    index: int = 0
    message: _Message | None = None


class _Chunk(msgspec.Struct):
    model: str = ""
    delta: _Delta | None = None


_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode


def ask_for(data: dict[str, Raw], schema: Raw, model: Mapping[str, Any]) -> dict[str, Raw]:
    """``data`` of an LLM call that asks for an object of ``schema``."""
    rules = {rule.get("name"): rule for rule in model.get("parameter_rules") or ()}
    if _SCHEMA in rules:
        # As a text inside JSON: that is the type of this model parameter.
        text = msgspec.json.encode(bytes(schema).decode())
        wanted = {_SCHEMA: Raw(text)}
        if _SCHEMA in (rules.get("response_format", {}).get("options") or ()):
            wanted["response_format"] = Raw(b'"json_schema"')
        given = msgspec.json.decode(data["model_parameters"], type=dict[str, Raw])
        parameters = Raw(msgspec.json.encode({**given, **wanted}))
        return {**data, "model_parameters": parameters, _SCHEMA: schema}
    messages = msgspec.json.decode(data["prompt_messages"], type=list[Raw])
    words = {"role": "system", "content": _WORDS + bytes(schema).decode(), "name": None}
    # In front, so that the caller's own messages stay together and the last word is theirs.
    told = [Raw(msgspec.json.encode(words)), *messages]
    return {**data, "prompt_messages": Raw(msgspec.json.encode(told))}


@final
class TextCollector:
    """Puts the text of an LLM's chunks together. One per call."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._model = ""
        self._index = 0

    def add(self, chunk: bytes) -> None:
        """Take one chunk. BackCallFailed when the text grows beyond all reason."""
        try:
            found = _decode_chunk(chunk)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BackCallFailed(f"the model's answer cannot be read: {error}") from error
        self._model = found.model or self._model
        if found.delta is None or found.delta.message is None:
            return
        # The chunk with the object comes behind all others by its number, too.
        self._index = max(self._index, found.delta.index)
        text = _text(found.delta.message.content)
        self._parts.append(text)
        self._size += len(text)
        if self._size > _MOST:
            raise BackCallFailed(f"the model's answer is longer than {_MOST} characters")

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    def structured_chunk(self) -> bytes:
        """The chunk that carries the object. BackCallFailed when the text holds none."""
        message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
        return msgspec.json.encode(
            {
                "model": self._model,
                "prompt_messages": [],
                "system_fingerprint": None,
                "delta": {
                    "index": self._index + 1,
                    "message": message,
                    "usage": None,
                    "finish_reason": None,
                },
                "structured_output": _object(self.text),
            }
        )


def _text(content: object) -> str:
    if isinstance(content, list):
        parts = [one.get("data") for one in content if isinstance(one, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _object(text: str) -> dict[str, Any]:
    """The object in a model's text, whatever it says around it."""
    # Models that were told "nothing else" still like to add a fence or a sentence.
    start, end = text.find("{"), text.rfind("}")
    try:
        found = msgspec.json.decode(text[start : end + 1]) if start >= 0 else None
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict):
        raise BackCallFailed(f"the model's answer is no JSON object: {text[:200]!r}")
    return found
