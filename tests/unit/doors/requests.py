"""Requests for handlers, made without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from tidegate.doors.routes import Request


class WholeBody:
    """A body that is there already."""

    def __init__(self, data: bytes, size: int = 7) -> None:
        self._data = data
        self._size = size

    def read(self) -> bytes:
        return self._data

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), self._size):
            yield self._data[start : start + self._size]


def make_request(
    method: str = "GET",
    path: str = "/",
    *,
    query: Any = None,
    json_body: Any = None,
    body: bytes = b"",
    content_type: str | None = None,
    headers: dict[str, str] | None = None,
    params: dict[str, str] | None = None,
) -> Request:
    """A request as ``api`` would make it."""
    if json_body is not None:
        body = json.dumps(json_body).encode()
        content_type = content_type or "application/json"
    environ: dict[str, Any] = {"QUERY_STRING": urlencode(query or {}, doseq=True)}
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    for name, value in (headers or {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return Request(environ, method, path, params or {}, WholeBody(body))
