"""Every type of back-call: one row each (spec/plugin/05 sections 2 and 3).

A row says which permission of the manifest it needs, where Dify answers it, whether that is a
stream, which fields a request cannot do without, and how its errors begin. Adding a type is
adding a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from msgspec import Raw

from tidegate.errors import BackCallInvalid
from tidegate.wire.inner_api import InnerApiError, request_fields


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """One row.

    ``permission``: (section, switch) of ``resource.permission``, the switch empty where the
    section's ``enabled`` is all; None when nothing is needed. ``access`` names it to people.
    ``path`` lies below ``<DIFY_INNER_API_URL>/inner/api/``; empty when Dify is never asked.
    ``what`` stands in errors: ``{verb} {what} failed``, ``read {reading or what} failed``.
    ``twice``: Dify wraps the answer twice. ``texts``: optional texts that Dify gets as ``""``
    when the plugin sent null or left them out, as from the reference. ``choices``: fields with
    the values that they take.
    """

    type: str
    permission: tuple[str, str] | None
    access: str
    path: str
    what: str
    required: tuple[str, ...]
    stream: bool = False
    twice: bool = False
    verb: str = "invoke"
    reading: str = ""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    def read(self, request: bytes) -> dict[str, Raw]:
        """The fields of a request of this type. BackCallInvalid says what does not fit."""
        try:
            return request_fields(request, self.required, self.choices)
        except InnerApiError as error:
            raise BackCallInvalid(f"unmarshal backwards invoke request failed: {error}") from error

    @property
    def failed(self) -> str:
        """How the error of a call begins that got no answer."""
        return f"{self.verb} {self.what} failed: "

    @property
    def read_failed(self) -> str:
        """How the error begins of an answer that broke off."""
        # What is no stream is read whole before anything is told: one error for both.
        return f"read {self.reading or self.what} failed: " if self.stream else self.failed


_TOOL: Final = ("tool", "")
_LLM: Final = ("model", "llm")
_EMBEDDING: Final = ("model", "text_embedding")
_RERANK: Final = ("model", "rerank")
_NODE: Final = ("node", "")
_APP: Final = ("app", "")
_MODEL: Final = ("provider", "model")
_CHAT: Final = (*_MODEL, "mode")

_ROWS: Final = (
    Kind("tool", _TOOL, "tool", "invoke/tool", "tool",
         ("tool_type", "provider", "tool"), stream=True, reading="tool response",
         choices={"tool_type": ("builtin", "workflow", "api", "mcp")}, texts=("credential_id",)),
    Kind("llm", _LLM, "llm", "invoke/llm", "llm model", _CHAT, stream=True),
    Kind("llm_structured_output", _LLM, "llm", "invoke/llm/structured-output",
         "llm with structured output model", (*_CHAT, "structured_output_schema"), stream=True),
    Kind("text_embedding", _EMBEDDING, "text-embedding", "invoke/text-embedding",
         "text-embedding model", (*_MODEL, "texts", "input_type")),
    Kind("multimodal_embedding", _EMBEDDING, "text-embedding", "invoke/multimodal-embedding",
         "multimodal embedding model", (*_MODEL, "documents", "input_type"),
         choices={"input_type": ("document", "query")}),
    Kind("rerank", _RERANK, "rerank", "invoke/rerank", "rerank model",
         (*_MODEL, "query", "docs")),
    Kind("multimodal_rerank", _RERANK, "rerank", "invoke/multimodal-rerank",
         "multimodal rerank model", (*_MODEL, "query", "docs")),
    Kind("tts", ("model", "tts"), "tts", "invoke/tts", "tts model",
         (*_MODEL, "content_text", "voice"), stream=True),
    Kind("speech2text", ("model", "speech2text"), "speech2text", "invoke/speech2text",
         "speech2text model", (*_MODEL, "file")),
    Kind("moderation", ("model", "moderation"), "moderation", "invoke/moderation",
         "moderation model", (*_MODEL, "text")),
    Kind("node_parameter_extractor", _NODE, "node", "invoke/parameter-extractor",
         "parameter extractor", ("parameters", "model", "query")),
    Kind("node_question_classifier", _NODE, "node", "invoke/question-classifier",
         "question classifier", ("classes", "model", "query")),
    Kind("app", _APP, "app", "invoke/app", "app", ("app_id",), stream=True,
         choices={"response_mode": ("streaming", "blocking")}, texts=("conversation_id", "user")),
    # Its data stands in a data of its own, as with no other.
    Kind("fetch_app", _APP, "app", "fetch/app/info", "app", ("app_id",), twice=True,
         verb="fetch"),
    # No path: Dify has nothing to do with it.
    Kind("storage", ("storage", ""), "storage", "", "storage", ("opt", "key")),
    # Every plugin may: the file belongs to the tenant, and Dify signs where it goes.
    Kind("upload_file", None, "", "upload/file/request", "file", ("filename", "mimetype"),
         verb="upload"),
    Kind("system_summary", _LLM, "llm", "invoke/summary", "summary", ("text",)),
)  # fmt: skip

KINDS: Final = {row.type: row for row in _ROWS}
"""Type of a back-call -> its row."""
