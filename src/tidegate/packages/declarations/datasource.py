"""Datasources and their provider."""

from __future__ import annotations

from tidegate.packages.declarations.configs import OAUTH, PARAMETER, TAGS, configs
from tidegate.packages.declarations.documents import Documents, with_files
from tidegate.packages.shapes import (
    I18N,
    Json,
    free_mapping,
    list_of,
    members,
    or_null,
    record,
    text,
)
from tidegate.packages.yaml_nodes import Node

_DATASOURCE = record(
    {
        "identity": record({"author": text, "name": text, "label": I18N, "icon": text}),
        "parameters": list_of(record(PARAMETER | {"description": I18N})),
        "description": I18N,
        "output_schema": or_null(free_mapping),
    },
    omit=("output_schema",),
)
_PROVIDER = record(
    {
        "identity": record(
            {
                "author": text,
                "name": text,
                "description": I18N,
                "icon": text,
                "label": I18N,
                "tags": TAGS,
            }
        ),
        "credentials_schema": configs,
        "oauth_schema": OAUTH,
        "provider_type": text,
    }
)


def datasource_provider(documents: Documents, node: Node | None) -> Json:
    """A datasource provider with its datasources."""
    return _PROVIDER(node) | {
        "datasources": with_files(documents, members(node), "datasources", _DATASOURCE)
    }
