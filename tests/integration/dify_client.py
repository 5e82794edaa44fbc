"""Dify's client of the plugin daemon as a test sees it: what it sends, and what it chokes on.

client = DifyClient(stack.port, stack.key)
client.get("management/list", page=1, page_size=256, response_type="paged")
for item in client.stream("tool/invoke", "tidegate/hello", {...}): ...

It is strict where Dify's is (spec/dify/client.md section 1): it fails the test on whatever Dify
would raise ``ValueError`` for, and raises :class:`Refused` for an error of a type that Dify maps.
Its connections are kept: to go on after a stream was left it opens another one, as a pool does.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

from tests.stack import TENANT

HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br",
    "Connection": "keep-alive",
    "User-Agent": "python-httpx/0.28.1",
}
#: What Dify turns into an exception of its own; it knows no other names.
MAPPED = {
    "PluginDaemonBadRequestError",
    "PluginDaemonInnerError",
    "PluginDaemonInternalServerError",
    "PluginDaemonNotFoundError",
    "PluginDaemonUnauthorizedError",
    "PluginInvokeError",
    "PluginNotFoundError",
    "PluginPermissionDeniedError",
    "PluginUniqueIdentifierError",
}
#: Dify's limit of a part of a file.
MOST_OF_A_PART = 8192
WAIT = 60.0


class Refused(Exception):
    """An error that Dify understands. ``kind`` is the plugin's own error where there is one."""

    def __init__(self, code: int, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = code
        self.outer = error["error_type"]
        inner = json.loads(error["message"]) if self.outer == "PluginInvokeError" else error
        self.kind = inner["error_type"]
        self.text = inner["message"]


class DifyClient:
    """One of Dify's processes. ``opened`` counts the connections that it needed."""

    def __init__(self, port: int, key: str) -> None:
        self.opened = 0
        self._port = port
        self._key = key
        self._idle: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Give all connections back."""
        while self._idle:
            self._idle.pop().close()

    # ------------------------------------------------------------------ plain answers

    def get(self, path: str, **query: Any) -> Any:
        """``data`` of a GET below the tenant."""
        return self._plain("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any = None) -> Any:
        """``data`` of a POST; without a body it has a length of 0 and no type, as Dify sends it."""
        if body is None:
            return self._plain("POST", path, b"", {"Content-Length": "0"})
        return self._plain("POST", path, json.dumps(body).encode(), _JSON)

    def upload(self, package: bytes) -> Any:
        """Upload a package; the form's field comes before the file."""
        mark = uuid.uuid4().hex
        field = 'Content-Disposition: form-data; name="verify_signature"\r\n\r\nfalse'
        file = 'Content-Disposition: form-data; name="dify_pkg"; filename="dify_pkg"'
        head = f"--{mark}\r\n{field}\r\n--{mark}\r\n{file}\r\n{_OCTETS}\r\n\r\n".encode()
        body = head + package + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        return self._plain("POST", "management/install/upload/package", body, kind)

    def asset(self, name: str) -> bytes:
        """An icon's bytes."""
        connection = self._send("GET", f"asset/{name}", None, {})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/octet-stream"
        data = answer.read()
        self._idle.append(connection)
        return data

    def wait_task(self, task_id: str) -> Any:
        """The task when it has ended, asked for as the plugin page does."""
        ends_at = time.monotonic() + WAIT
        while (task := self.get(f"management/install/tasks/{task_id}"))["status"] in _ACTIVE:
            assert time.monotonic() < ends_at, task
            time.sleep(0.05)
        return task

    def _plain(
        self, method: str, path: str, body: bytes | None = None, more: dict[str, str] | None = None
    ) -> Any:
        connection = self._send(method, path, body, more or {})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text  # Dify does not look at the body of any other
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert "Content-Encoding" not in answer.headers
        self._idle.append(connection)
        return _data(json.loads(text))

    # ------------------------------------------------------------------ streams

    def stream(self, action: str, plugin: str, data: Any, **context: Any) -> Iterator[Any]:
        """The chunks of a dispatch call. To close the iterator early is to stop the call."""
        body = json.dumps({**context, "data": data}).encode()
        head = {**_JSON, "X-Plugin-ID": plugin}
        connection = self._send("POST", f"dispatch/{action}", body, head)
        whole = False
        try:
            answer = connection.getresponse()
            if answer.status != 200:  # Dify does not look: to it the body is the first event
                yield _data(json.loads(answer.read()))
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert "Content-Encoding" not in answer.headers
            for line in _lines(answer):
                assert line.startswith("data:"), line
                yield _data(json.loads(line.removeprefix("data:")))
            whole = True
        finally:
            if whole:
                self._idle.append(connection)
            else:
                connection.close()

    def first(self, action: str, plugin: str, data: Any, **context: Any) -> Any:
        """The first chunk, after which Dify leaves most calls."""
        with closing(self.stream(action, plugin, data, **context)) as chunks:
            return next(chunks)

    def _send(
        self, method: str, path: str, body: bytes | None, more: dict[str, str]
    ) -> http.client.HTTPConnection:
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT)
            self.opened += 1
        connection.putrequest(method, f"/plugin/{TENANT}/{path}", skip_accept_encoding=True)
        length = {"Content-Length": str(len(body))} if body else {}
        for name, value in {**HEADERS, "X-Api-Key": self._key, **more, **length}.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        return connection


def merged(chunks: Iterator[Any]) -> Iterator[Any]:
    """The messages with parts of files put together, by Dify's rules."""
    files: dict[str, bytes] = {}
    for chunk in chunks:
        if chunk["type"] != "blob_chunk":
            yield chunk
            continue
        part = chunk["message"]
        data = base64.b64decode(part["blob"])
        assert len(data) <= MOST_OF_A_PART
        files[part["id"]] = files.get(part["id"], b"") + data
        if part["end"]:
            file = files.pop(part["id"])
            assert len(file) == part["total_length"]
            yield {"type": "blob", "message": {"blob": file}, "meta": chunk.get("meta")}
    assert not files, "a file that did not end"


def _data(envelope: Any) -> Any:
    assert isinstance(envelope["code"], int)
    assert isinstance(envelope["message"], str)
    if envelope["code"] == 0:
        assert envelope["data"] is not None, "Dify takes null for an error"
        return envelope["data"]
    error = json.loads(envelope["message"])
    assert error["error_type"] in MAPPED, error
    raise Refused(envelope["code"], error)


def _lines(answer: http.client.HTTPResponse) -> Iterator[str]:
    """As httpx splits them: at every line end that Unicode knows, not only at those of SSE."""
    held = b""
    while data := answer.read1(1 << 16):
        *whole, held = (held + data).split(b"\n")
        for piece in whole:
            yield from filter(None, (line.strip() for line in piece.decode().splitlines()))
    assert not held, "the last line has no end"


_JSON = {"Content-Type": "application/json"}
_OCTETS = "Content-Type: application/octet-stream"
_ACTIVE = ("pending", "running")
