"""The whole product for tests: `tidegate up` with its four roles, and a client over HTTP.

with running_stack(home, TIDEGATE_OUTPUT_SCHEMA="enforce") as stack:
    stack.install(package)
    stack.call("tidegate/hello", "tool/invoke", {...})

A test that has to hold on both databases and brokers takes the fixture ``either_stack`` (import it
by its name), or makes its own with ``backend.fresh()`` of databases.py.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gevent import monkey

from tests.databases import Backend
from tests.hosting import working_path
from tests.patience import wait_until
from tests.servers import PostgresServer, RedisServer

TENANT = "00000000-0000-4000-8000-00000000000a"
ROLES = ("api", "worker", "beat", "host")
WAIT = 60.0


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """What one dispatch call brought."""

    status: int = 0
    items: list[Any] = field(default_factory=list)
    error: dict[str, Any] | None = None
    took: float = 0.0

    @property
    def texts(self) -> list[str]:
        """Texts of its text messages."""
        return [one["message"]["text"] for one in self.items if one.get("type") == "text"]


class Stack:
    """A running Tidegate. Made by :func:`running_stack`."""

    def __init__(self, home: Path, port: int, log: Path) -> None:
        self.home = home
        self.port = port
        self.log = log
        self.server_key = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> str:
        """The one given by SERVER_KEY, else what the first start wrote."""
        return self.server_key or (self.home / "keys" / "server.key").read_text().strip()

    def pid(self, role: str) -> int:
        """Process id of a role; of the host itself, not of the guard above it."""
        pid = int((self.home / "run" / f"{role}.pid").read_text())
        if role != "host":
            return pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else pid

    def connection(self) -> http.client.HTTPConnection:
        """A connection to api."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """One request: (status, body)."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self.connection()
        try:
            connection.request(method, path, body, {"X-Api-Key": self.key, **given})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def data(self, method: str, path: str, body: Any = None) -> Any:
        """``data`` of a management route's envelope; the test fails on any other code."""
        text = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content_Type": "application/json"}
        _, raw = self.ask(method, f"/plugin/{TENANT}/management/{path}", text, **kind)
        envelope = json.loads(raw)
        assert envelope["code"] == 0, raw
        return envelope["data"]

    def upload(self, package: bytes) -> str:
        """Upload a package; its identifier."""
        mark = uuid.uuid4().hex
        body = (
            f'--{mark}\r\nContent-Disposition: form-data; name="dify_pkg"; filename="p"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body += package + f"\r\n--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        path = f"/plugin/{TENANT}/management/install/upload/package"
        _, raw = self.ask("POST", path, body, Content_Type=kind)
        envelope = json.loads(raw)
        assert envelope["code"] == 0, raw
        return str(envelope["data"]["unique_identifier"])

    def install(self, package: bytes) -> str:
        """Upload and install a package; its plugin id."""
        identifier = self.upload(package)
        asked = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
        answer = self.data("POST", "install/identifiers", asked)
        if not answer["all_installed"]:
            task = self.wait_task(answer["task_id"])
            assert task["status"] == "success", task
        return identifier.split(":")[0]

    def wait_task(self, task_id: str) -> Any:
        """The install task when it has ended."""
        return wait_until(
            lambda: (
                task
                if (task := self.data("GET", f"install/tasks/{task_id}"))["status"]
                in ("success", "failed")
                else None
            )
        )

    def request(self, plugin: str, action: str, data: Any) -> tuple[str, bytes, dict[str, str]]:
        """(path, body, headers) of a dispatch call."""
        body = json.dumps({"user_id": "tests", "data": data}).encode()
        headers = {
            "X-Api-Key": self.key,
            "X-Plugin-ID": plugin,
            "Content-Type": "application/json",
        }
        return f"/plugin/{TENANT}/dispatch/{action}", body, headers

    def call(
        self,
        plugin: str,
        action: str,
        data: Any,
        *,
        leave_after: int | None = None,
        on_item: Callable[[Any], None] | None = None,
    ) -> Answer:
        """One dispatch call, read to its end or to ``leave_after`` events."""
        path, body, headers = self.request(plugin, action, data)
        answer, started = Answer(), time.monotonic()
        connection = self.connection()
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer.status = response.status
            while line := response.readline():
                if not line.strip():
                    continue
                envelope = json.loads(line.removeprefix(b"data:"))
                if envelope["code"] != 0:
                    answer.error = innermost(envelope)
                    continue
                answer.items.append(envelope["data"])
                if on_item is not None:
                    on_item(envelope["data"])
                if leave_after is not None and len(answer.items) >= leave_after:
                    break
        finally:
            connection.close()
        answer.took = time.monotonic() - started
        return answer

    def tool(self, plugin: str, tool: str, parameters: Any, **more: Any) -> Answer:
        """A tool invocation; provider and plugin have the same name."""
        provider = plugin.split("/")[1]
        data = {"provider": provider, "tool": tool, "tool_parameters": parameters}
        return self.call(plugin, "tool/invoke", {**data, "credentials": {}}, **more)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 when it has no sample yet."""
        _, text = self.ask("GET", "/metrics/")
        samples = [
            line.rpartition(" ")[2]
            for line in text.decode().splitlines()
            if line.partition("{")[0].partition(" ")[0] == name
        ]
        return sum(map(float, samples))

    def start(self, environ: dict[str, str]) -> None:
        """Start `tidegate up` and wait until api answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("tidegate")), "up"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._ready)

    def stop(self) -> int:
        """TERM, as Ctrl-C does; the exit code."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            return code
        self.process.send_signal(signal.SIGTERM)
        return _exit_code(self.process)

    def _ready(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"up ended with {code}: {self.log.read_text()[-3000:]}"
        try:
            status, _ = self.ask("GET", "/health/check")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and all((self.home / "run" / f"{r}.pid").exists() for r in ROLES)


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Its code when it has ended. Not by Popen.wait: under gevent that hangs when anybody took
    gevent's handler of SIGCHLD away since the start (the hygiene of conftest.py does).
    """
    descriptor = os.pidfd_open(process.pid)
    try:
        assert select.select([descriptor], [], [], WAIT)[0], f"no end within {WAIT} s"
    finally:
        os.close(descriptor)
    try:
        _, status = monkey.get_original("os", "waitpid")(process.pid, 0)
    except ChildProcessError:  # that handler is there, and was faster
        return process.wait(WAIT)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


def innermost(envelope: dict[str, Any]) -> dict[str, Any]:
    """The plugin's own error of an envelope, or the server's when there is none inside."""
    error = json.loads(envelope["message"])
    if error["message"].startswith("{"):
        inner: dict[str, Any] = json.loads(error["message"])
        return inner
    return dict(error)


@contextmanager
def running_stack(home: Path, **variables: str) -> Iterator[Stack]:
    """All four roles on the embedded default, on a free port; stopped in order at the end."""
    port = free_port()
    stack = Stack(home, port, home.parent / f"{home.name}.log")
    environ = {
        **{name: value for name, value in os.environ.items() if name in _KEPT},
        "TIDEGATE_HOME": str(home),
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(port),
        "PLUGIN_REMOTE_INSTALLING_PORT": str(free_port()),
        "PLUGIN_WORKING_PATH": str(working_path()),
        "FORCE_VERIFYING_SIGNATURE": "false",
        "TIDEGATE_GRACE": "5",
        **variables,
    }
    stack.server_key = variables.get("SERVER_KEY", "")
    try:
        stack.start(environ)
        yield stack
    finally:
        if stack.process is not None:
            code = stack.stop()
            assert code == 0, stack.log.read_text()[-3000:]


@contextmanager
def on_servers(postgres: PostgresServer, redis: RedisServer) -> Iterator[dict[str, str]]:
    """A database and a key prefix of one stack's own, as settings for :func:`running_stack`."""
    with postgres.database() as environ:
        yield {**environ, **redis.environ, "REDIS_KEY_PREFIX": f"tidegate-{uuid.uuid4().hex}"}


@pytest.fixture(scope="module")
def either_stack(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One Tidegate per module on each backend, which finds an empty database."""
    home = tmp_path_factory.mktemp(backend.kind) / "tidegate"
    with backend.fresh(migrated=False) as variables, running_stack(home, **variables) as stack:
        yield stack


#: What a role needs of the machine: where programs are, and how to reach a package index.
_KEPT = (
    "PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "PYENV_ROOT",
)  # fmt: skip
