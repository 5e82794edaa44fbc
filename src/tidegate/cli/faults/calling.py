"""Calls as bystanders and culprits make them: threads and plain sockets, nothing of ours."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final
from urllib.parse import urlsplit

from tidegate.cli.target import Target

OK, ERROR, REFUSED, CUT, HUNG = "ok", "error", "refused", "cut", "hung"
#: What half a line, or a line of something else, makes of reading it. It counts as cut: an
#: exception would end the bystander's thread, and a stream that is not counted was never hurt.
_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError)


@final
@dataclass(slots=True)
class Outcome:
    """How one call ended: one of the five words above, and what it said."""

    end: str = CUT
    error: str = ""
    chunks: int = 0
    lost: int = 0
    gap: float = 0.0
    took: float = 0.0

    def shown(self) -> str:
        """One cell of a table."""
        text = f"{self.end} after {self.took:.1f} s, {self.chunks} chunks"
        return f"{text}: {self.error}" if self.error else text


@final
class Server:
    """Where the calls go. Its methods may be called from many threads."""

    def __init__(self, target: Target, patience: float) -> None:
        """``patience``: seconds of silence after which a call counts as hung."""
        self._target = target
        self._parts = urlsplit(target.base)
        self.patience = patience

    def call(self, plugin: str, deed: str, given: Mapping[str, object]) -> Outcome:
        """One call, read to its end; its chunks are checked when they are numbered."""
        outcome, began = Outcome(), time.monotonic()
        try:
            with contextlib.closing(self._connection()) as connection:
                response = self._ask(connection, plugin, deed, given)
                self._read(response, outcome, numbered=deed == "tick")
        except TimeoutError:
            outcome.end = HUNG
        except (OSError, http.client.HTTPException, *_UNREADABLE) as error:
            outcome.end, outcome.error = CUT, type(error).__name__
        outcome.took = time.monotonic() - began
        return outcome

    def misbehave(self, how: str, plugin: str, deed: str, given: Mapping[str, object]) -> Outcome:
        """A call whose client is the bad actor."""
        behaviour = getattr(self, f"_client_{how}")
        outcome, began = Outcome(), time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                outcome = behaviour(stack, plugin, deed, given)
            except TimeoutError:
                outcome.end = HUNG
            except OSError as error:
                outcome.error = type(error).__name__
        outcome.took = time.monotonic() - began
        return outcome

    # ------------------------------------------------------------------ reading

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(str(self._parts.hostname), self._parts.port, timeout=self.patience)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        plugin: str,
        deed: str,
        given: Mapping[str, object],
    ) -> Any:
        path, headers, body = self._request(plugin, deed, given)
        connection.request("POST", path, body, headers)
        return connection.getresponse()

    def _read(self, response: Any, outcome: Outcome, *, numbered: bool) -> None:
        last = time.monotonic()
        outcome.end = REFUSED if response.status != 200 else OK
        for envelope in _envelopes(response):
            now = time.monotonic()
            outcome.gap, last = max(outcome.gap, now - last), now
            if envelope.get("code") != 0:
                outcome.error = _reason(envelope)
                outcome.end = outcome.end if response.status != 200 else ERROR
                continue
            if numbered:
                number = int(envelope["data"]["message"]["text"].split()[0])
                outcome.lost += number - outcome.chunks
                outcome.chunks = number
            outcome.chunks += 1

    def _request(
        self, plugin: str, deed: str, given: Mapping[str, object]
    ) -> tuple[str, dict[str, str], bytes]:
        parameters = {"deed": deed, **given}
        data = {"provider": "badactor", "tool": "act", "tool_parameters": parameters}
        body = {"user_id": "faults", "data": {**data, "credentials": {}}}
        path = f"{self._parts.path.rstrip('/')}/plugin/{self._target.tenant}/dispatch/tool/invoke"
        headers = {
            "X-Api-Key": self._target.key.reveal(),
            "X-Plugin-ID": plugin,
            "Content-Type": "application/json",
        }
        return path, headers, json.dumps(body).encode()

    # ------------------------------------------------------------------ clients that misbehave

    def _client_silent(self, stack: Any, *call: Any) -> Outcome:
        sock = self._raw(stack, *call, buffer=16384)
        time.sleep(4)
        received = len(sock.recv(1 << 16))
        return Outcome(OK, f"read nothing for 4 s, then {received} bytes")

    def _client_leave(self, stack: Any, *call: Any) -> Outcome:
        sock = self._raw(stack, *call)
        sock.recv(1 << 16)
        # Closing then resets the connection instead of ending it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return Outcome(OK, "reset after its first bytes")

    def _client_half_body(self, stack: Any, *call: Any) -> Outcome:
        sock = self._raw(stack, *call, share=0.5)
        return _first_line(sock, quiet="waits for the rest")

    def _client_slow_head(self, stack: Any, *call: Any) -> Outcome:
        sock = self._connect(stack)
        for byte in b"POST / HTTP/1.1\r\n":
            sock.sendall(bytes([byte]))
            time.sleep(0.5)
        return _first_line(sock, quiet="waits for the rest")

    def _client_wrong_key(self, stack: Any, *call: Any) -> Outcome:
        return _first_line(self._raw(stack, *call, key="wrong"))

    def _client_bad_json(self, stack: Any, *call: Any) -> Outcome:
        return _first_line(self._raw(stack, *call, body=b'{"data": '))

    def _raw(
        self,
        stack: contextlib.ExitStack,
        plugin: str,
        deed: str,
        given: Mapping[str, object],
        *,
        buffer: int = 0,
        share: float = 1.0,
        key: str = "",
        body: bytes | None = None,
    ) -> socket.socket:
        path, headers, whole = self._request(plugin, deed, given)
        body = whole if body is None else body
        if key:
            headers["X-Api-Key"] = key
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
        sock = self._connect(stack, buffer)
        sock.sendall(head + body[: int(len(body) * share)])
        return sock

    def _connect(self, stack: contextlib.ExitStack, buffer: int = 0) -> socket.socket:
        plain = stack.enter_context(socket.socket())
        if buffer:
            # Before connecting, when the window is agreed on: a large one would swallow what "not
            # reading" is to stop.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.settimeout(self.patience)
        plain.connect((self._parts.hostname, self._parts.port or (443 if self._secure else 80)))
        if not self._secure:
            return plain
        context = ssl.create_default_context()
        return stack.enter_context(context.wrap_socket(plain, server_hostname=self._parts.hostname))

    @property
    def _secure(self) -> bool:
        return self._parts.scheme == "https"


def _envelopes(response: Any) -> Iterator[dict[str, Any]]:
    """Of a stream, or the one of a plain answer."""
    while line := response.readline():
        text = line.strip().removeprefix(b"data:")
        if text:
            yield json.loads(text)


def _reason(envelope: Mapping[str, Any]) -> str:
    """The innermost ``error_type: message``."""
    message = str(envelope.get("message", ""))
    kind = ""
    while message.startswith("{"):
        try:
            inner = json.loads(message)
        except ValueError:
            break
        kind, message = str(inner.get("error_type", kind)), str(inner.get("message", ""))
    return f"{kind}: {message.splitlines()[0] if message else ''}"[:160]


def _first_line(sock: socket.socket, quiet: str = "") -> Outcome:
    """What a client that misbehaves is told. ``quiet``: what it means to be told nothing."""
    if quiet:
        sock.settimeout(2)
    try:
        line = sock.recv(4096).split(b"\r\n")[0].decode("latin-1")
    except TimeoutError:
        if not quiet:
            raise
        return Outcome(OK, quiet)
    return Outcome(REFUSED, line)
