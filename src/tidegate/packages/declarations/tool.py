"""Tools and their provider."""

from __future__ import annotations

from tidegate.packages.declarations.configs import (
    IDENTITY,
    OAUTH,
    PARAMETER,
    PROVIDER_IDENTITY,
    configs,
)
from tidegate.packages.declarations.documents import Documents, with_files
from tidegate.packages.shapes import (
    I18N,
    Json,
    flag,
    free_mapping,
    inside,
    list_of,
    members,
    or_null,
    record,
    text,
)
from tidegate.packages.yaml_nodes import Mapping, Node, Sequence

_TOOL = record(
    {
        "identity": IDENTITY,
        "description": record({"human": I18N, "llm": text}),
        "parameters": list_of(
            record(
                PARAMETER
                | {"human_description": I18N, "form": text, "llm_description": text}
                | {"multiple": flag}
            )
        ),
        "output_schema": or_null(free_mapping),
        "has_runtime_parameters": flag,
    },
    omit=("output_schema",),
)


def tool_provider(documents: Documents, node: Node | None) -> Json:
    """A tool provider with its tools."""
    fields = members(node)
    credentials = fields.get("credentials_schema")
    if not (isinstance(credentials, Mapping | Sequence) and credentials.items):
        credentials = fields.get("credentials_for_provider")
    head = record({"identity": PROVIDER_IDENTITY, "oauth_schema": OAUTH})(node)
    return head | {
        "credentials_schema": inside(".credentials_schema", configs, credentials),
        "tools": with_files(documents, fields, "tools", _TOOL),
    }
