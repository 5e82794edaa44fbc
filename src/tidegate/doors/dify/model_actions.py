"""Actions of models: a row for each (see ``actions``)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Raw

from tidegate.doors.dify.action import (
    CREDENTIALS,
    PROVIDER,
    RESULT,
    Action,
    Field,
    items,
    mapping,
    text,
)
from tidegate.doors.dify.reshapers import LabelMender

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


class Message(msgspec.Struct):
    """One of the messages whose tokens are counted; what it says is the plugin's business."""

    role: Literal["system", "user", "assistant", "tool", "developer"]


class Content(msgspec.Struct):
    """A text or an image of a multimodal embedding or rerank."""

    content: Annotated[str, msgspec.Meta(min_length=1)]
    content_type: Literal["text", "image"]


MODEL: Final = (PROVIDER, text("model", required=True), *CREDENTIALS)
ANY_MODEL_TYPE: Final = Field("model_type", str, required=True, only=_MODEL_TYPES, tag="model_type")


def model_type(value: str) -> Field:
    """``model_type`` that must be ``value``."""
    return Field("model_type", str, required=True, only=(value,), tag="eq")


_EMBEDDINGS = "{model, embeddings, usage}"
_DOCS = "{model, docs}"
_POLLED = (
    "{status, plugin_state, result, error, next_check_after_seconds, expires_after_seconds, "
    "max_attempts}"
)
_LLM = (
    *MODEL,
    model_type("llm"),
    mapping("model_parameters"),
    items("prompt_messages"),
    items("tools", Tool, absent=b"null"),
    Field("tool_choice", ToolChoice),
    items("stop", absent=b"null"),
    Field("json_schema", dict[str, Raw]),
)
_EMBED = (*MODEL, model_type("text-embedding"), items("texts", required=True))
#: Which type of model serves them is free here.
_MULTIMODAL = (*MODEL, text("model_type", required=True))
_RANKED = (
    Field("score_threshold", float, absent=b"0"),
    Field("top_n", int, absent=b"0"),
)
MODELS: Final = (
    Action(
        "llm/invoke",
        "model",
        "invoke_llm",
        (*_LLM, Field("stream", bool, absent=b"false", null=b"false")),
        "{model, system_fingerprint, delta, prompt_messages}",
        unary=False,
    ),
    Action(
        "llm/num_tokens",
        "model",
        "get_llm_num_tokens",
        (
            *MODEL,
            model_type("llm"),
            items("prompt_messages", Message),
            items("tools", Tool, absent=b"null"),
        ),
        "{num_tokens}",
    ),
    Action(
        "text_embedding/invoke",
        "model",
        "invoke_text_embedding",
        (*_EMBED, text("input_type", required=True)),
        _EMBEDDINGS,
    ),
    Action(
        "text_embedding/num_tokens",
        "model",
        "get_text_embedding_num_tokens",
        _EMBED,
        "{num_tokens}",
    ),
    Action(
        "multimodal_embedding/invoke",
        "model",
        "invoke_multimodal_embedding",
        (
            *_MULTIMODAL,
            items("documents", Content, required=True),
            Field("input_type", str, required=True, only=("document", "query")),
        ),
        _EMBEDDINGS,
    ),
    Action(
        "rerank/invoke",
        "model",
        "invoke_rerank",
        (
            *MODEL,
            model_type("rerank"),
            text("query", required=True),
            items("docs", required=True),
            *_RANKED,
        ),
        _DOCS,
    ),
    Action(
        "multimodal_rerank/invoke",
        "model",
        "invoke_multimodal_rerank",
        (
            *_MULTIMODAL,
            Field("query", Content, required=True),
            items("docs", Content, required=True),
            *_RANKED,
        ),
        _DOCS,
    ),
    Action(
        "tts/invoke",
        "model",
        "invoke_tts",
        (
            *MODEL,
            model_type("tts"),
            text("content_text", required=True),
            text("voice", required=True),
            text("tenant_id", required=True),
        ),
        "{result, mime_type}",
        unary=False,
    ),
    Action(
        "tts/model/voices",
        "model",
        "get_tts_model_voices",
        (*MODEL, model_type("tts"), text("language", absent=b'""')),
        "{voices}",
    ),
    Action(
        "speech2text/invoke",
        "model",
        "invoke_speech2text",
        (*MODEL, model_type("speech2text"), text("file", required=True)),
        RESULT,
    ),
    Action(
        "moderation/invoke",
        "model",
        "invoke_moderation",
        (*MODEL, model_type("moderation"), text("text", required=True)),
        RESULT,
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
        reshaper=lambda data: LabelMender(data.text("model")),
    ),
    Action(
        "model/polling/start",
        "model",
        "start_polling",
        # the SDK takes no other value
        (*_LLM, Field("stream", bool, always=b"false")),
        _POLLED,
        plain=True,
    ),
    Action(
        "model/polling/check",
        "model",
        "check_polling",
        (
            *MODEL,
            model_type("llm"),
            Field(
                "plugin_state", Annotated[dict[str, Raw], msgspec.Meta(min_length=1)], required=True
            ),
        ),
        _POLLED,
        plain=True,
    ),
)
