"""The OpenAPI document of all routes, made from the table that serves them.

    {"openapi": "3.1.0", "paths": {"/plugin/{tenant_id}/management/list": {"get": …}}}

A route's form gives its query or its body; answers are the envelope, events or bytes. What a
client must send is in ``required``; what is checked beyond types stands in the form's rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, final

import msgspec

from tidegate import __version__
from tidegate.doors.binding import REQUIRED, Form
from tidegate.doors.route_table import RouteTable
from tidegate.doors.routes import Auth, BodyRule, Kind, Request, Response, Route

PATH: Final = "/openapi.json"
_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{([a-z_]+)(?:\.\.\.)?\}")
_ENVELOPE: Final = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer", "description": "0, or negative when it failed"},
        "message": {
            "type": "string",
            "description": "success, or the JSON text {message, error_type, args} of the error",
        },
        "data": {"description": "what was asked for; null when it failed"},
    },
}


@final
class OpenApiDoor:
    """Serves the document; ``table`` is set when the table is whole."""

    def __init__(self) -> None:
        self.table: RouteTable | None = None
        self._made: bytes | None = None

    def route(self) -> Route:
        """Its row."""
        docs = "This list as an OpenAPI document."
        return Route("GET", PATH, self.show, docs, Auth.NONE, kind=Kind.RAW)

    def show(self, request: Request) -> Response:
        """The document, made at the first request."""
        # At the first request: most processes are never asked.
        if self._made is None:
            self._made = msgspec.json.encode(document(self.table.routes if self.table else ()))
        return Response(200, self._made, content_type="application/json; charset=utf-8")


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document for these rows, as JSON values."""
    rows = list(routes)
    taken = [row.form for row in rows if row.form is not None]
    shapes, components = msgspec.json.schema_components(taken, ref_template=_REF)
    schemas = dict(zip(taken, shapes, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        operation = _operation(row, schemas, components)
        paths.setdefault(openapi_path(row.pattern), {})[row.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidegate", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**components, "Envelope": _ENVELOPE},
            "securitySchemes": {
                auth.name: {"type": "apiKey", "in": "header", "name": auth.value}
                for auth in Auth
                if auth is not Auth.NONE
            },
        },
    }


def openapi_path(pattern: str) -> str:
    """A pattern of the table as OpenAPI writes it."""
    return _PARAMETER.sub(r"{\1}", pattern)


def _operation(
    row: Route, schemas: dict[Any, dict[str, Any]], components: dict[str, Any]
) -> dict[str, Any]:
    in_path = _PARAMETER.findall(row.pattern)
    parameters = [_parameter(name, "path", {"type": "string"}, required=True) for name in in_path]
    if row.header:
        parameters.append(_parameter(row.header, "header", {"type": "string"}, required=True))
    operation: dict[str, Any] = {"summary": row.docs, "responses": _responses(row)}
    if row.auth is not Auth.NONE:
        operation["security"] = [{row.auth.name: []}]
    if row.form is not None:
        schema = _whole(schemas[row.form], components)
        needed = _needed(row.form)
        fields = {name: one for name, one in schema["properties"].items() if name not in in_path}
        if row.method == "GET":
            parameters += [
                _parameter(name, "query", one, required=name in needed)
                for name, one in fields.items()
            ]
        elif fields:
            operation["requestBody"] = _body(row, fields, sorted(needed & fields.keys()))
    elif row.body is BodyRule.RAW:
        operation["requestBody"] = {"content": {"*/*": {}}}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _parameter(name: str, place: str, schema: Any, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _whole(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = components[reference.rpartition("/")[2]]
    return found


def _needed(form: type[msgspec.Struct]) -> set[str]:
    if not issubclass(form, Form):
        return {"data"}
    return {name for name, rules in form.rules.items() if REQUIRED in rules}


def _body(row: Route, fields: dict[str, Any], needed: list[str]) -> dict[str, Any]:
    multipart = row.body is BodyRule.MULTIPART
    kind = "multipart/form-data" if multipart else "application/json"
    schema = {"type": "object", "properties": fields, "required": needed}
    return {"required": bool(needed), "content": {kind: {"schema": schema}}}


def _responses(row: Route) -> dict[str, Any]:
    envelope = {"application/json": {"schema": {"$ref": _REF.format(name="Envelope")}}}
    good = {
        Kind.ENVELOPE: envelope,
        Kind.STREAM: {"text/event-stream": {"schema": {"$ref": _REF.format(name="Envelope")}}},
        Kind.RAW: {"*/*": {}},
        Kind.SOCKET: {},
    }[row.kind]
    status = "101" if row.kind is Kind.SOCKET else "200"
    responses: dict[str, Any] = {status: {"description": row.kind.value, "content": good}}
    if row.kind is not Kind.RAW or row.form is not None:
        responses["4XX"] = {"description": "the request does not fit", "content": envelope}
    return responses
