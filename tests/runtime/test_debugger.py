"""The debugger's template works: a breakpoint in a gevent worker is hit and evaluates (R28)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from tests.runtime.asking import ask
from tests.runtime.conftest import CONFIG, free_port
from tests.runtime.processes import HERE

PROBE = HERE / "programs/probe.py"
LINE = next(
    number
    for number, line in enumerate(PROBE.read_text().splitlines(), 1)
    if 'return fingerprint("api")' in line
)


@pytest.mark.limit(120, "debugpy starts an adapter of its own for each process")
def test_R28_a_breakpoint_in_a_request_is_hit_and_evaluates(start, environ):
    port = free_port()
    start("python", "-Xfrozen_modules=off", "-m", "debugpy", "--listen", f"127.0.0.1:{port}",
          "--wait-for-client", "-m", "gunicorn", "-c", CONFIG, "probe:app",
          GEVENT_SUPPORT="True", GUNICORN_TIMEOUT="0", SERVER_WORKER_AMOUNT="1")  # fmt: skip
    with _client(port) as master:
        master.attach({"subProcess": True})
        child = master.event("debugpyAttach")["body"]
        with _client(child["connect"]["port"]) as worker:
            worker.attach(child)
            request = gevent.spawn(ask, environ, "/state", timeout=60)
            stopped = worker.event("stopped")["body"]
            assert stopped["reason"] == "breakpoint"
            frames = worker.request("stackTrace", threadId=stopped["threadId"])["stackFrames"]
            answer = worker.request(
                "evaluate", expression="boot.stage().value", frameId=frames[0]["id"]
            )
            assert answer["result"] == "'serving'"
            worker.request("continue", threadId=stopped["threadId"])
            state = request.get(timeout=30)
    assert (state["runner"], state["pool"]) == ("gunicorn", "GeventWorker")
    assert (state["grpc"], state["psycopg2"], state["reload"]) == (True, True, False)


class _Client:
    """As much of the Debug Adapter Protocol as one breakpoint needs."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def attach(self, arguments: dict[str, Any]) -> None:
        """Attach, set the breakpoint, let the program run."""
        self.request("initialize", adapterID="tests", pathFormat="path")
        number = self._send("attach", {**arguments, "justMyCode": False})
        self.event("initialized")
        breakpoints = [{"line": LINE}]
        self.request("setBreakpoints", source={"path": str(PROBE)}, breakpoints=breakpoints)
        self.request("configurationDone")
        self._answer(number)

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The body of the answer to one request."""
        return self._answer(self._send(command, arguments))

    def event(self, name: str) -> dict[str, Any]:
        """The next event of this name."""
        while True:
            for event in self._events:
                if event["event"] == name:
                    self._events.remove(event)
                    return event
            self._receive()

    def _send(self, command: str, arguments: dict[str, Any]) -> int:
        self._number += 1
        message = {"seq": self._number, "type": "request", "command": command}
        body = json.dumps({**message, "arguments": arguments}).encode()
        self._sock.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._number

    def _answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self._receive()
            if message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return dict(message.get("body") or {})

    def _receive(self) -> dict[str, Any]:
        length = 0
        while line := self._file.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(self._file.read(length))
        if message["type"] == "event":
            self._events.append(message)
        return message

    def close(self) -> None:
        """Leave; the program goes on."""
        self._file.close()


@contextmanager
def _client(port: int) -> Iterator[_Client]:
    with gevent.Timeout(30):
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", port), timeout=60)
                break
            except ConnectionRefusedError:
                gevent.sleep(0.05)
    with sock:
        client = _Client(sock)
        try:
            yield client
        finally:
            client.close()
