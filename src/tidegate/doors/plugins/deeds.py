"""What a back-call becomes: one row per type that Tidegate answers by calling a plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from msgspec import Raw


@final
@dataclass(frozen=True, slots=True)
class Deed:
    """One row. ``section`` of the declaration is the plugin protocol's type as well.

    ``fields``: the action's field -> (the back-call's field, JSON when that is missing or null).
    """

    section: str
    action: str
    fields: Mapping[str, tuple[str, bytes]]
    model_type: str = ""

    def data(self, request: Mapping[str, Raw]) -> dict[str, Raw]:
        """The action's own fields, as the bytes that came."""
        found = {}
        for name, (source, absent) in self.fields.items():
            value = request.get(source)
            found[name] = Raw(absent) if value is None or value == Raw(b"null") else value
        return found


def _same(*names: str, absent: bytes = b"null") -> dict[str, tuple[str, bytes]]:
    return {name: (name, absent) for name in names}


def _model(action: str, model_type: str, fields: dict[str, tuple[str, bytes]]) -> Deed:
    return Deed("model", action, {**_same("model"), **fields}, model_type)


_LLM: Final = _model(
    "invoke_llm",
    "llm",
    {
        "model_parameters": ("completion_params", b"{}"),
        **_same("prompt_messages", absent=b"[]"),
        **_same("tools", "stop"),
        **_same("stream", absent=b"false"),
    },
)
_RANK: Final = _same("query", "docs", "score_threshold", "top_n")

DEEDS: Final[Mapping[str, Deed]] = {
    "llm": _LLM,
    "llm_structured_output": _LLM,
    "system_summary": _LLM,
    "text_embedding": _model(
        "invoke_text_embedding", "text-embedding", _same("texts", "input_type")
    ),
    "multimodal_embedding": _model(
        "invoke_multimodal_embedding", "text-embedding", _same("documents", "input_type")
    ),
    "rerank": _model("invoke_rerank", "rerank", _RANK),
    "multimodal_rerank": _model("invoke_multimodal_rerank", "rerank", _RANK),
    "tts": _model("invoke_tts", "tts", _same("content_text", "voice")),
    "speech2text": _model("invoke_speech2text", "speech2text", _same("file")),
    "moderation": _model("invoke_moderation", "moderation", _same("text")),
    "tool": Deed(
        "tool", "invoke_tool", {**_same("tool"), **_same("tool_parameters", absent=b"{}")}
    ),
}
"""Type of a back-call -> its row. What has none here needs Dify."""
