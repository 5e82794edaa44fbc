"""The summary: which language model makes it, and what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from tidegate.doors.plugins.providers import Providers
from tidegate.errors import BackCallFailed
from tidegate.wire.inner_api import text_field

_TASK: Final = (
    "Summarize the text that the user sends. Keep what matters, leave out the rest, invent "
    "nothing. Answer with the summary alone.\n"
)
_TYPE: Final = "llm"


def choose(providers: Providers, tenant: str, given: str) -> tuple[str, str]:
    """(provider, model): the setting's, else the first with credentials, else the first at all.

    BackCallFailed when the tenant has no language model whose name is known.
    """
    if given:
        # From the right: the provider has two slashes of its own.
        provider, _, model = given.rpartition("/")
        return provider, model
    declared = {
        one.full_name: [
            str(model["model"])
            for model in one.declaration.get("models") or ()
            if model.get("model_type") == _TYPE
        ]
        for one in providers.all(tenant, "model")
    }
    for name, model in providers.models_with_credentials(tenant, _TYPE):
        if model or declared.get(name):
            return name, model or declared[name][0]
    for name, models in declared.items():
        if models:
            return name, models[0]
    raise BackCallFailed(
        "no language model is installed that could summarize (TIDEGATE_SUMMARY_MODEL)"
    )


def request(asked: Mapping[str, Raw], model: str) -> dict[str, Raw]:
    """The back-call as one to a language model."""
    task = _TASK + text_field(dict(asked), "instruction")
    messages = [
        {"role": "system", "content": task, "name": None},
        {"role": "user", "content": text_field(dict(asked), "text"), "name": None},
    ]
    return {
        "model": Raw(msgspec.json.encode(model)),
        "prompt_messages": Raw(msgspec.json.encode(messages)),
    }
