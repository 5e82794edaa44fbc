"""Pieces that several kinds share: credentials and settings, OAuth, identities, parameters."""

from __future__ import annotations

from tidegate.packages.shapes import (
    I18N,
    OPTIONAL_I18N,
    Json,
    Misfit,
    anything,
    flag,
    list_of,
    members,
    nullable,
    number,
    optional_text,
    or_empty,
    record,
    text,
    whole,
)
from tidegate.packages.yaml_nodes import Mapping, Node

_CONFIG = record(
    {
        "name": text,
        "type": text,
        "scope": optional_text,
        "required": flag,
        "default": anything,
        "options": list_of(record({"value": text, "label": I18N})),
        "multiple": flag,
        "label": I18N,
        "help": OPTIONAL_I18N,
        "url": optional_text,
        "placeholder": OPTIONAL_I18N,
    }
)

#: A list of configs; null when absent.
CONFIG_LIST = list_of(_CONFIG)


def configs(node: Node | None) -> list[Json]:
    """Configs as a list, or as a mapping whose keys are their names; ``[]`` when absent."""
    if not isinstance(node, Mapping):
        return CONFIG_LIST(node) or []
    found = []
    for name, item in members(node).items():
        if not isinstance(item, Mapping):
            raise Misfit(f"takes a mapping below {name!r}", item)
        found.append(_CONFIG(item) | {"name": name})
    return found


#: Null when absent.
OAUTH = nullable(record({"client_schema": CONFIG_LIST, "credentials_schema": CONFIG_LIST}))

TAGS = or_empty(list_of(text))

#: Identity of tool, agent strategy and trigger providers.
PROVIDER_IDENTITY = record(
    {
        "author": text,
        "name": text,
        "description": I18N,
        "icon": text,
        "icon_dark": text,
        "label": I18N,
        "tags": TAGS,
    }
)
#: Identity of one tool, strategy or event.
IDENTITY = record({"author": text, "name": text, "label": I18N})

AUTO_GENERATE = nullable(record({"type": text}))
TEMPLATE = nullable(record({"enabled": flag}))
OPTIONS = list_of(record({"value": text, "label": I18N, "icon": text}))

#: Fields that parameters of tools, strategies and datasources have alike.
PARAMETER = {
    "name": text,
    "label": I18N,
    "type": text,
    "auto_generate": AUTO_GENERATE,
    "template": TEMPLATE,
    "scope": optional_text,
    "required": flag,
    "default": anything,
    "min": number,
    "max": number,
    "precision": whole,
    "options": OPTIONS,
}
