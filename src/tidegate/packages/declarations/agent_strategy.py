"""Agent strategies and their provider."""

from __future__ import annotations

from tidegate.packages.declarations.configs import IDENTITY, PARAMETER, PROVIDER_IDENTITY
from tidegate.packages.declarations.documents import Documents, with_files
from tidegate.packages.shapes import (
    I18N,
    Json,
    free_mapping,
    list_of,
    members,
    or_empty,
    record,
    text,
)
from tidegate.packages.yaml_nodes import Node

_STRATEGY = record(
    {
        "identity": IDENTITY,
        "description": I18N,
        "parameters": list_of(record(PARAMETER | {"help": I18N})),
        "output_schema": free_mapping,
        "features": or_empty(list_of(text)),
    }
)


def agent_strategy_provider(documents: Documents, node: Node | None) -> Json:
    """An agent strategy provider with its strategies."""
    return record({"identity": PROVIDER_IDENTITY})(node) | {
        "strategies": with_files(documents, members(node), "strategies", _STRATEGY)
    }
