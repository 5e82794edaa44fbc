"""The actions of plugins that Dify's dispatch routes serve: one row each.

A row names the path, the plugin protocol's type and action, the fields that the request's
``data`` may have (spec/http/01 section 5, spec/plugin/04) and what the chunks are. Both dispatch
prefixes are built from it. Adding an action is adding a row to :data:`ACTIONS`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Raw

from tidegate.doors.dify.action import DROP, Action, Data, Field, items, mapping, text
from tidegate.doors.dify.reshapers import ExpiryMender, LabelMender
from tidegate.doors.files import BlobMerger

__all__ = ["ACTIONS", "Action", "Data"]

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


class BrowseFiles(msgspec.Struct):
    """``request`` of browsing an online drive."""

    max_keys: int
    bucket: str | None = None
    prefix: str | None = None
    next_page_parameters: dict[str, Raw] | None = None


class DownloadFile(msgspec.Struct):
    """``request`` of downloading from an online drive."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    bucket: str | None = None


PROVIDER: Final = text("provider", required=True)
#: An empty type counts as none, and then the SDK has its own default.
CREDENTIAL_TYPE: Final = Field("credential_type", str, null=DROP, empty=DROP)
CREDENTIALS: Final = (mapping("credentials"), CREDENTIAL_TYPE)
MODEL: Final = (PROVIDER, text("model", required=True), *CREDENTIALS)
ANY_MODEL_TYPE: Final = Field("model_type", str, required=True, only=_MODEL_TYPES, tag="model_type")


def model_type(value: str) -> Field:
    """``model_type`` that must be ``value``."""
    return Field("model_type", str, required=True, only=(value,), tag="eq")


_MESSAGE = "{type, message, meta}"
_RESULT = "{result}"
_EMBEDDINGS = "{model, embeddings, usage}"
_DOCS = "{model, docs}"
_POLLED = (
    "{status, plugin_state, result, error, next_check_after_seconds, expires_after_seconds, "
    "max_attempts}"
)
_SUBSCRIPTION = "{subscription}"

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
_OAUTH = (PROVIDER, text("redirect_uri", required=True), mapping("system_credentials"))
_RAW_REQUEST = text("raw_http_request", required=True)
_SOURCE = (PROVIDER, text("datasource", required=True), *CREDENTIALS)
_SUBSCRIBED = mapping("subscription", required=True)
#: The SDK has no default: what has no type is not authorized.
_TRIGGER = (
    PROVIDER,
    mapping("credentials"),
    Field(
        "credential_type",
        str,
        absent=b'"unauthorized"',
        null=b'"unauthorized"',
        empty=b'"unauthorized"',
    ),
)
#: Here the SDK takes null for both, but the keys must be there.
_DISPATCHED = (
    PROVIDER,
    Field("credentials", dict[str, Raw], absent=b"null"),
    Field("credential_type", str, absent=b"null", empty=b"null"),
)

_TOOLS: Final = (
    Action(
        "tool/invoke",
        "tool",
        "invoke_tool",
        (PROVIDER, text("tool", required=True), mapping("tool_parameters"), *CREDENTIALS),
        _MESSAGE,
        unary=False,
        rules="tool",
        declared="tools",
    ),
    Action(
        "tool/validate_credentials",
        "tool",
        "validate_tool_credentials",
        (PROVIDER, mapping("credentials")),
        _RESULT,
    ),
    Action(
        "tool/get_runtime_parameters",
        "tool",
        "get_tool_runtime_parameters",
        (PROVIDER, text("tool", required=True), mapping("credentials")),
        "{parameters}",
    ),
    Action(
        "agent_strategy/invoke",
        "agent_strategy",
        "invoke_agent_strategy",
        (
            text("agent_strategy_provider", required=True),
            text("agent_strategy", required=True),
            mapping("agent_strategy_params"),
        ),
        _MESSAGE + ", files in one piece",
        unary=False,
        rules="agent_strategy",
        declared="strategies",
        reshaper=lambda _: BlobMerger(),
    ),
)

_MODELS: Final = (
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
        _RESULT,
    ),
    Action(
        "moderation/invoke",
        "model",
        "invoke_moderation",
        (*MODEL, model_type("moderation"), text("text", required=True)),
        _RESULT,
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

_OAUTHS: Final = (
    Action(
        "oauth/get_authorization_url",
        "oauth",
        "get_authorization_url",
        _OAUTH,
        "{authorization_url}",
    ),
    Action(
        "oauth/get_credentials",
        "oauth",
        "get_credentials",
        (*_OAUTH, _RAW_REQUEST),
        "{metadata, credentials, expires_at}",
        reshaper=lambda _: ExpiryMender(),
    ),
    Action(
        "oauth/refresh_credentials",
        "oauth",
        "refresh_credentials",
        (*_OAUTH, mapping("credentials", required=True)),
        "{credentials, expires_at}",
        reshaper=lambda _: ExpiryMender(),
    ),
    Action(
        "dynamic_select/fetch_parameter_options",
        "dynamic_parameter",
        "fetch_parameter_options",
        (
            mapping("credentials", required=True),
            CREDENTIAL_TYPE,
            PROVIDER,
            text("provider_action", required=True),
            text("parameter", required=True),
        ),
        "{options}",
    ),
)

_DATASOURCES: Final = (
    Action(
        "datasource/validate_credentials",
        "datasource",
        "validate_datasource_credentials",
        (PROVIDER, *CREDENTIALS),
        _RESULT,
    ),
    Action(
        "datasource/get_website_crawl",
        "datasource",
        "invoke_website_datasource_get_crawl",
        (*_SOURCE, mapping("datasource_parameters", required=True)),
        _RESULT,
        unary=False,
    ),
    Action(
        "datasource/get_online_document_pages",
        "datasource",
        "invoke_online_document_datasource_get_pages",
        (*_SOURCE, mapping("datasource_parameters", required=True)),
        _RESULT,
    ),
    Action(
        "datasource/get_online_document_page_content",
        "datasource",
        "invoke_online_document_datasource_get_page_content",
        (*_SOURCE, mapping("page", required=True)),
        _MESSAGE,
        unary=False,
        rules="datasource",
        declared="datasources",
    ),
    Action(
        "datasource/online_drive_browse_files",
        "datasource",
        "invoke_online_drive_browse_files",
        (*_SOURCE, Field("request", BrowseFiles, required=True)),
        _RESULT,
    ),
    Action(
        "datasource/online_drive_download_file",
        "datasource",
        "invoke_online_drive_download_file",
        (*_SOURCE, Field("request", DownloadFile, required=True)),
        _MESSAGE,
        unary=False,
        rules="datasource",
        declared="datasources",
    ),
)

_TRIGGERS: Final = (
    Action(
        "trigger/invoke_event",
        "trigger",
        "invoke_trigger_event",
        (
            PROVIDER,
            text("event", required=True),
            _RAW_REQUEST,
            mapping("parameters"),
            _SUBSCRIBED,
            mapping("payload"),
            *CREDENTIALS,
        ),
        "{variables, cancelled}",
    ),
    Action(
        "trigger/validate_credentials",
        "trigger",
        "validate_trigger_credentials",
        (PROVIDER, *CREDENTIALS),
        _RESULT,
    ),
    Action(
        "trigger/dispatch_event",
        "trigger",
        "dispatch_trigger_event",
        (*_DISPATCHED, _SUBSCRIBED, _RAW_REQUEST),
        "{user_id, events, payload, response}",
    ),
    Action(
        "trigger/subscribe",
        "trigger",
        "subscribe_trigger",
        (*_TRIGGER, text("endpoint", required=True), mapping("parameters")),
        _SUBSCRIPTION,
    ),
    Action(
        "trigger/unsubscribe",
        "trigger",
        "unsubscribe_trigger",
        (*_TRIGGER, _SUBSCRIBED),
        _SUBSCRIPTION,
    ),
    Action(
        "trigger/refresh",
        "trigger",
        "refresh_trigger",
        (*_TRIGGER, _SUBSCRIBED),
        _SUBSCRIPTION,
    ),
)

ACTIONS: Final[tuple[Action, ...]] = (*_TOOLS, *_MODELS, *_OAUTHS, *_DATASOURCES, *_TRIGGERS)
