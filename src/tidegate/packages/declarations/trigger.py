"""Triggers: their events and how one subscribes to them."""

from __future__ import annotations

from tidegate.packages.declarations.configs import (
    AUTO_GENERATE,
    IDENTITY,
    OAUTH,
    PROVIDER_IDENTITY,
    TEMPLATE,
    configs,
)
from tidegate.packages.declarations.documents import Documents, with_files
from tidegate.packages.shapes import (
    I18N,
    OPTIONAL_I18N,
    Json,
    anything,
    flag,
    free_mapping,
    list_of,
    members,
    number,
    optional_text,
    or_empty,
    or_null,
    record,
    text,
    whole,
)
from tidegate.packages.yaml_nodes import Mapping, Node

_PARAMETER = record(
    {
        "name": text,
        "label": I18N,
        "type": text,
        "auto_generate": AUTO_GENERATE,
        "template": TEMPLATE,
        "scope": optional_text,
        "required": flag,
        "multiple": or_null(flag),
        "default": anything,
        "min": number,
        "max": number,
        "precision": whole,
        "options": or_null(list_of(record({"label": I18N, "value": anything}))),
        "description": OPTIONAL_I18N,
    },
    omit=(
        *("auto_generate", "template", "scope", "multiple", "default", "min", "max"),
        *("precision", "options", "description"),
    ),
)
_EVENT = record(
    {
        "identity": IDENTITY,
        "parameters": list_of(_PARAMETER),
        "description": I18N,
        "output_schema": or_null(free_mapping),
    },
    omit=("output_schema",),
)
_CONSTRUCTOR = record(
    {
        "parameters": or_empty(list_of(_PARAMETER)),
        "credentials_schema": configs,
        "oauth_schema": OAUTH,
    },
    omit=("oauth_schema",),
)
_PROVIDER = record(
    {
        "identity": PROVIDER_IDENTITY,
        "subscription_schema": configs,
        # Anything but a mapping counts as absent, as in the reference.
        "subscription_constructor": lambda node: (
            _CONSTRUCTOR(node) if isinstance(node, Mapping) else None
        ),
    }
)


def trigger_provider(documents: Documents, node: Node | None) -> Json:
    """A trigger provider with its events."""
    return _PROVIDER(node) | {"events": with_files(documents, members(node), "events", _EVENT)}
