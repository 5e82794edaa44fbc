"""Requests to the program under test."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode


def ask(
    environ: Mapping[str, str],
    path: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = 20.0,
    **query: str,
) -> Any:
    """The JSON answer of one GET."""
    with opened(environ, path, headers, timeout, **query) as response:
        assert response.status == 200, (response.status, response.read())
        return json.loads(response.read())


@contextmanager
def opened(
    environ: Mapping[str, str],
    path: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = 20.0,
    **query: str,
) -> Iterator[http.client.HTTPResponse]:
    """One GET whose body is read by the test, line by line."""
    connection = http.client.HTTPConnection(
        environ["SERVER_HOST"], int(environ["SERVER_PORT"]), timeout=timeout
    )
    try:
        target = f"{path}?{urlencode(query)}" if query else path
        connection.request("GET", target, headers=dict(headers or {}))
        yield connection.getresponse()
    finally:
        connection.close()
