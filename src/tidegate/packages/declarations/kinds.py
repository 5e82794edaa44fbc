"""The six kinds of things that a plugin may offer, and how a manifest names them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Fields
from dataclasses import dataclass
from typing import Final, final

from tidegate.errors import PackageRejected
from tidegate.packages.declarations.agent_strategy import agent_strategy_provider
from tidegate.packages.declarations.datasource import datasource_provider
from tidegate.packages.declarations.documents import Documents
from tidegate.packages.declarations.endpoint import endpoint_provider
from tidegate.packages.declarations.model import model_provider
from tidegate.packages.declarations.tool import tool_provider
from tidegate.packages.declarations.trigger import trigger_provider
from tidegate.packages.shapes import Json, Misfit, real
from tidegate.packages.yaml_nodes import Node


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its key in the declaration, its list of files below ``plugins``, its decoder."""

    key: str
    files: str
    decode: Callable[[Documents, Node | None], Json]


KINDS: Final = (
    Kind("tool", "tools", tool_provider),
    Kind("model", "models", model_provider),
    Kind("endpoint", "endpoints", endpoint_provider),
    Kind("agent_strategy", "agent_strategies", agent_strategy_provider),
    Kind("datasource", "datasources", datasource_provider),
    Kind("trigger", "triggers", trigger_provider),
)

#: (kind, category) in the order in which the first that is present names the category.
CATEGORIES: Final = (
    ("tool", "tool"),
    ("model", "model"),
    ("datasource", "datasource"),
    ("agent_strategy", "agent-strategy"),
    ("trigger", "trigger"),
    ("endpoint", "extension"),
)


def decode_kinds(
    documents: Documents, files: Fields[str, list[str]], inline: Fields[str, Node]
) -> dict[str, Json]:
    """Every kind that the manifest names by files or holds inline; the last file wins.

    Raises PackageRejected with file, field and line.
    """
    found: dict[str, Json] = {}
    for kind in KINDS:
        node = real(inline.get(kind.key))
        if node is not None:
            found[kind.key] = _decode(documents, kind, "manifest.yaml", node)
        for file in files.get(kind.files) or []:
            found[kind.key] = _decode(documents, kind, file, documents.node(file))
    return found


def _decode(documents: Documents, kind: Kind, file: str, node: Node | None) -> Json:
    try:
        return kind.decode(documents, node)
    except Misfit as misfit:
        raise PackageRejected(f"{file}: {misfit}") from None
