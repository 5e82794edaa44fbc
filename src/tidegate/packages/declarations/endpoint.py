"""Endpoints: groups of webhooks with their settings."""

from __future__ import annotations

from tidegate.packages.declarations.configs import CONFIG_LIST
from tidegate.packages.declarations.documents import Documents
from tidegate.packages.shapes import Json, Misfit, flag, members, record, text
from tidegate.packages.yaml_nodes import Node, Scalar, Sequence

_ENDPOINT = record({"path": text, "method": text, "hidden": flag})


def endpoint_provider(documents: Documents, node: Node | None) -> Json:
    """An endpoint group; its two lists are null when there are none."""
    fields = members(node)
    paths: list[str] = []
    inline: list[Json] = []
    listed = fields.get("endpoints")
    for item in listed.items if isinstance(listed, Sequence) else []:
        if isinstance(item, Scalar):
            paths.append(item.text)
            continue
        try:
            inline.append(_ENDPOINT(item))
        except Misfit:
            # The reference stops reading here and keeps what it has; packages rely on it.
            break
    found = inline + [documents.decode(path, _ENDPOINT) for path in paths]
    return record({"settings": CONFIG_LIST})(node) | {"endpoints": found or None}
