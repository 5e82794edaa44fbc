"""The table of routes: which row answers which path."""

from __future__ import annotations

import pytest

from tests.unit.doors.requests import make_request
from tidegate.doors.route_table import RouteTable
from tidegate.doors.routes import Request, Response, Route


def route(method: str, pattern: str) -> Route:
    def handler(request: Request) -> Response:
        return Response(200, b"")

    return Route(method, pattern, handler, "")


PATTERNS = [
    ("GET", "/health/check"),
    ("GET", "/metrics/"),
    ("POST", "/plugin/{tenant}/tasks/delete_all"),
    ("GET", "/plugin/{tenant}/tasks/{id}"),
    ("POST", "/plugin/{tenant}/tasks/{id}/delete"),
    ("POST", "/plugin/{tenant}/tasks/{id}/delete/{identifier...}"),
    ("GET", "/plugin/{tenant}/{category}/list"),
    ("GET", "/plugin/{tenant}/models/bindings"),
]
TABLE = RouteTable(route(*row) for row in PATTERNS)


@pytest.mark.parametrize(
    ("method", "path", "pattern", "params"),
    [
        ("GET", "/health/check", "/health/check", {}),
        ("GET", "/metrics/", "/metrics/", {}),
        ("POST", "/plugin/t/tasks/delete_all", PATTERNS[2][1], {"tenant": "t"}),
        ("GET", "/plugin/t/tasks/7", PATTERNS[3][1], {"tenant": "t", "id": "7"}),
        ("GET", "/plugin/t/tasks/delete_all", PATTERNS[3][1], {"tenant": "t", "id": "delete_all"}),
        ("POST", "/plugin/t/tasks/7/delete", PATTERNS[4][1], {"tenant": "t", "id": "7"}),
        (
            "POST",
            "/plugin/t/tasks/7/delete/a/b:1.0@ff",
            PATTERNS[5][1],
            {"tenant": "t", "id": "7", "identifier": "a/b:1.0@ff"},
        ),
        ("GET", "/plugin/t/models/bindings", PATTERNS[7][1], {"tenant": "t"}),
        # the static segment leads nowhere here: the parameter gets its turn
        ("GET", "/plugin/t/models/list", PATTERNS[6][1], {"tenant": "t", "category": "models"}),
    ],
)
def test_finds_the_row(method: str, path: str, pattern: str, params: dict[str, str]) -> None:
    found = TABLE.find(method, path)
    assert found is not None
    assert (found[0].pattern, found[1]) == (pattern, params)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/health/check"),
        ("POST", "/health/check"),
        ("GET", "/health/check/"),
        ("GET", "//health/check"),
        ("GET", "/Health/check"),
        ("GET", "/plugin//tasks/7"),
        ("GET", "/plugin/t/tasks/"),
        ("GET", "/plugin/t"),
        ("DELETE", "/plugin/t/tasks/7"),
        ("GET", "/"),
        ("GET", ""),
        ("OPTIONS", "*"),
    ],
)
def test_unknown_paths_and_methods_have_no_row(method: str, path: str) -> None:
    assert TABLE.find(method, path) is None


def test_a_second_row_for_the_same_path_is_refused() -> None:
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([route("GET", "/a/{x}"), route("GET", "/a/{y}")])
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([route("GET", "/a"), route("GET", "/a")])


def test_two_methods_of_one_path_are_two_rows() -> None:
    table = RouteTable([route("GET", "/a/{x}"), route("POST", "/a/{x}")])
    assert table.find("GET", "/a/1") is not None
    assert table.find("POST", "/a/1") is not None


def test_a_request_reads_headers_in_any_spelling() -> None:
    request = make_request(headers={"X-Plugin-ID": "a/b"}, content_type="text/plain")
    assert request.header("x-plugin-id") == "a/b"
    assert request.header("Content-Type") == "text/plain"
    assert request.header("x-absent") == ""


def test_a_request_keeps_every_value_of_a_repeated_key() -> None:
    assert make_request(query={"tags": ["a", "b"]}).query == {"tags": ["a", "b"]}
