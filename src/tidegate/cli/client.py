"""The HTTP API as the command line uses it. Standard library only."""

from __future__ import annotations

import http.client
import json
import secrets
from typing import Any, final
from urllib.parse import urlencode, urlsplit

import click

from tidegate.cli.target import Target

#: Seconds that one answer may take; uploads of big packages included.
PATIENCE = 300.0


class Unreachable(click.ClickException):
    """Nothing answers at the address."""


@final
class Client:
    """Calls one Tidegate as one tenant. Every method raises ClickException with one line."""

    def __init__(self, target: Target, *, patience: float = PATIENCE) -> None:
        self.target = target
        self._patience = patience

    def get(self, path: str, **query: object) -> Any:
        """``data`` of the envelope that a GET below ``/plugin/<tenant>/`` gives."""
        text = f"?{urlencode(query)}" if query else ""
        return self._data(self._ask("GET", self._tenant(path) + text))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The same for a POST with a JSON body."""
        data = json.dumps(body or {}).encode()
        return self._data(self._ask("POST", self._tenant(path), data, "application/json"))

    def upload(self, path: str, field: str, filename: str, data: bytes) -> Any:
        """The same for a POST of one file."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; '
            f'filename="{filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self._data(self._ask("POST", self._tenant(path), body, kind))

    def root(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The plain JSON answer of a route outside a tenant (health, debug)."""
        data = None if body is None else json.dumps(body).encode()
        return self._ask(method, path, data, "application/json")

    def debug(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """``data`` of the envelope of a route below ``/debug/``."""
        return self._data(self.root(method, f"/debug/{path}", body))

    def _tenant(self, path: str) -> str:
        return f"/plugin/{self.target.tenant}/{path}"

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        headers = {"X-Api-Key": self.target.key.reveal()}
        if kind:
            headers["Content-Type"] = kind
        # A new one for each request: a command asks seldom, and a kept connection may have been
        # ended meanwhile.
        connection = self._connection()
        try:
            connection.request(method, self._prefix + path, body, headers)
            answer = connection.getresponse()
            return _read(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"nothing answers at {self.target.base} ({error or type(error).__name__}): "
                "start Tidegate with `tidegate up`, or name another by --base"
            ) from error
        finally:
            connection.close()

    @property
    def _prefix(self) -> str:
        return urlsplit(self.target.base).path.rstrip("/")

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.target.base)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise click.BadParameter(f"{self.target.base!r} is no address", param_hint="--base")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        return kind(parts.hostname, parts.port, timeout=self._patience)

    def _data(self, answer: Any) -> Any:
        if not isinstance(answer, dict) or "code" not in answer:
            raise click.ClickException(f"{self.target.base} is no Tidegate: it answered {answer!r}")
        if answer["code"] != 0:
            raise click.ClickException(reason(str(answer.get("message", ""))))
        return answer.get("data")


def reason(message: str) -> str:
    """The words of an error whose message may be JSON in JSON (``{error_type, message, args}``)."""
    try:
        inner = json.loads(message)
    except ValueError:
        return message
    if isinstance(inner, dict) and "message" in inner:
        # Dify's envelope has JSON in JSON, and an error of a plugin one layer more.
        return reason(str(inner["message"]))
    return message


def _read(status: int, body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise click.ClickException(
            f"HTTP {status}: {body[:200].decode(errors='replace')}"
        ) from None
