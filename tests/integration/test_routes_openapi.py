"""Table, OpenAPI document and docs/reference say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.door_world import World, world
from tidegate.doors.dify import ACTIONS
from tidegate.doors.openapi import openapi_path

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "routes.md"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with world(tmp_path_factory.mktemp("door"), {}) as made:
        made.call("GET", "/openapi.json")
        yield made


@pytest.fixture(scope="module")
def served(door: World) -> dict[str, Any]:
    status, body, headers = door.call("GET", "/openapi.json", key="")
    assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
    found: dict[str, Any] = json.loads(body)
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_the_document_has_every_route_of_the_table_and_no_other(
    door: World, served: dict[str, Any]
) -> None:
    table = {(row.method, openapi_path(row.pattern)) for row in door.application.table.routes}
    assert set(operations(served)) == table


def test_the_docs_have_every_route_of_the_table_and_no_other(door: World) -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    shown = {(cells[0].strip("| "), cells[1].strip("`")) for cells in rows if len(cells) == 5}
    shown -= {("method", "path")}
    table = {
        (row.method, row.pattern)
        for row in door.application.table.routes
        if "/dispatch/" not in row.pattern
    }
    assert shown == table
    actions = {cells[0].strip("| `") for cells in rows if len(cells) == 4} - {"path"}
    assert actions == {action.path for action in ACTIONS}


def test_references_lead_somewhere(served: dict[str, Any]) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                name = value["$ref"].removeprefix("#/components/schemas/")
                assert name in served["components"]["schemas"]
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(served)


def test_what_a_route_takes_is_in_the_document(served: dict[str, Any]) -> None:
    found = operations(served)
    management = "/plugin/{tenant_id}/management"
    listed = found["GET", f"{management}/list"]
    assert {(one["name"], one["in"], one["required"]) for one in listed["parameters"]} == {
        ("tenant_id", "path", True),
        ("page", "query", True),
        ("page_size", "query", True),
    }
    assert listed["security"] == [{"KEY": []}]
    upload = found["POST", f"{management}/install/upload/package"]["requestBody"]
    assert list(upload["content"]) == ["multipart/form-data"]
    assert upload["content"]["multipart/form-data"]["schema"]["required"] == ["dify_pkg"]
    dispatch = found["POST", "/plugin/{tenant_id}/dispatch/llm/invoke"]
    assert ("X-Plugin-ID", "header") in [(one["name"], one["in"]) for one in dispatch["parameters"]]
    [kind] = dispatch["responses"]["200"]["content"]
    assert kind == "text/event-stream"
    assert "security" not in found["POST", "/e/{hook_id}/{path}"]


def test_fields_of_each_action_are_in_the_document(served: dict[str, Any]) -> None:
    schemas = served["components"]["schemas"]
    for action in ACTIONS:
        assert set(schemas[action.action]["properties"]) == {one.name for one in action.fields}
