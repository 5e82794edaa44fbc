"""A connector for PLATFORM=serverless on this machine: builds packages, runs them as functions.

    with running_connector(settings, daemon="http://127.0.0.1:5002") as connector:
        # DIFY_PLUGIN_SERVERLESS_CONNECTOR_URL = connector.url

Each function is a process of the real SDK in its serverless mode, which is an HTTP server of its
own; it is started again when it dies. By hand:

    python -m gevent.monkey --module tidegate.testing.connector --port 5004 --home /tmp/functions
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import parse_qs

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from tidegate.clock import SYSTEM_CLOCK
from tidegate.doors.dify.multipart import MultipartReader, boundary_of
from tidegate.environments import Child, Environments, ReadEnd, spawn
from tidegate.errors import TidegateError
from tidegate.ids import PluginIdentifier
from tidegate.packages import Package, open_package
from tidegate.settings import Settings
from tidegate.wire.connector import package_name

type _Begin = Callable[[str, list[tuple[str, str]]], Any]

_TAIL: Final = 1 << 16
_READY: Final = 60.0
_JSON: Final = [("Content-Type", "application/json")]


@final
class RunningFunction:
    """One plugin as an HTTP server. Made by the connector; started again when it dies."""

    def __init__(self, name: str, command: list[str], folder: Path, daemon: str) -> None:
        self.name = name
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = b""
        self.starts = 0
        self._command = command
        self._folder = folder
        self._daemon = daemon
        self._stopped = False
        self._child: Child | None = None
        self._keeper = gevent.spawn(self._keep)

    @property
    def child(self) -> Child | None:
        """Its process, while there is one."""
        return self._child

    def wait_ready(self, seconds: float = _READY) -> None:
        """Until it answers. TimeoutError with what it said when it does not."""
        end = SYSTEM_CLOCK.monotonic() + seconds
        while not self._answers():
            if SYSTEM_CLOCK.monotonic() > end:
                said = self.output[-2000:].decode("utf-8", "replace")
                raise TimeoutError(f"{self.name} does not answer: {said}")
            gevent.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        if self._child is not None:
            self._child.kill()
        self._keeper.join()

    def _answers(self) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == http.HTTPStatus.OK
            except OSError:
                return False

    def _keep(self) -> None:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "INSTALL_METHOD": "serverless",
            "SERVERLESS_HOST": "127.0.0.1",
            "SERVERLESS_PORT": str(self.port),
            "DIFY_PLUGIN_DAEMON_URL": self._daemon,
            "PYTHONUNBUFFERED": "1",
        }
        while not self._stopped:
            child = self._child = spawn(
                self._command, folder=self._folder, environment=environment, merge=True
            )
            self.starts += 1
            self._drain(child)
            self._child = None
            # A function that fails at its start must not use up the machine of a test.
            gevent.sleep(0 if self._stopped else 0.05)

    def _drain(self, child: Child) -> None:
        os.close(child.stdin)
        pipe = ReadEnd(child.stdout)
        try:
            while data := pipe.read(_TAIL):
                self.output = (self.output + data)[-_TAIL:]
            child.wait()
        finally:
            pipe.close()


@final
class Connector:
    """The WSGI application that speaks the connector's protocol (spec/plugin/03 section 3).

    ``asked`` keeps what it was asked for, ``failing`` makes each launch fail with that text.
    """

    def __init__(self, settings: Settings, *, daemon: str, key: str = "") -> None:
        self.daemon = daemon
        self.asked: list[str] = []
        self.failing = ""
        self.functions: dict[str, RunningFunction] = {}
        self._settings = settings
        self._environments = Environments(settings)
        self._key = key

    def __call__(self, environ: dict[str, Any], begin: _Begin) -> Iterable[bytes]:
        """Answer one request."""
        place = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.asked.append(place)
        if environ.get("HTTP_AUTHORIZATION", "") != self._key:
            begin("401 Unauthorized", _JSON)
            return [b'{"error":"wrong key"}']
        if place == "POST /ping":
            begin("200 OK", _JSON)
            return [b'"pong"']
        if place == "GET /v1/runner/instances":
            begin("200 OK", _JSON)
            return [self._instances(environ)]
        if place == "POST /v1/launch":
            parts = _parts(environ, self._settings.max_plugin_package_size)
            begin("200 OK", [("Content-Type", "text/event-stream")])
            return self._launch(parts)
        begin("404 Not Found", _JSON)
        return [b"{}"]

    def function(self, identifier: str) -> RunningFunction:
        """The function of a version that was launched."""
        return self.functions[package_name(PluginIdentifier.parse(identifier))]

    def stop(self) -> None:
        """End every function."""
        for function in self.functions.values():
            function.stop()
        self.functions.clear()

    def _instances(self, environ: Mapping[str, Any]) -> bytes:
        wanted = parse_qs(environ.get("QUERY_STRING", "")).get("filename", [""])[0]
        found = self.functions.get(wanted)
        items = []
        if found is not None:
            state = {"State": "ACTIVE"}
            items = [{"ID": "1", "Name": found.name, "Endpoint": found.url, "Status": state}]
        return json.dumps({"error": "", "items": items}).encode()

    def _launch(self, parts: Mapping[str, bytes]) -> Iterator[bytes]:
        yield _stage("healthz", "success")
        yield _stage("start", "running")
        try:
            function = self._started(open_package(parts["context"], limit=1 << 30))
        except (TidegateError, OSError, TimeoutError, KeyError) as error:
            yield _stage("build", "failed", str(error))
            return
        yield _stage("build", "success")
        yield _stage("run", "running")
        yield _stage("run", "success", f"endpoint={function.url},name={function.name},id=1")
        yield _stage("end", "success")

    def _started(self, package: Package) -> RunningFunction:
        if self.failing:
            raise TimeoutError(self.failing)
        identifier = package.identifier
        name = package_name(identifier)
        old = self.functions.pop(name, None)
        if old is not None:
            # A launch of the same version is a reinstallation: the platform ends the one before.
            old.stop()
        folder = self._settings.working_path / "functions" / identifier.folder
        if not folder.exists():
            draft = folder.with_name(f".draft-{os.getpid()}-{folder.name}")
            draft.mkdir(parents=True)
            package.extract_to(draft)
            # Whole or not there: two launches of one version may come at once.
            draft.rename(folder)
        environment = self._environments.ensure(
            folder,
            python=package.runner.version,
            checksum=identifier.checksum,
            user=f"function+{identifier.checksum}",
            progress=lambda step, message: None,
        )
        command = [str(environment.python), "-m", package.runner.entrypoint]
        function = RunningFunction(f"{identifier.name}-1", command, folder, self.daemon)
        self.functions[name] = function
        function.wait_ready()
        return function


@contextmanager
def running_connector(
    settings: Settings, *, daemon: str = "", key: str = "", port: int = 0
) -> Iterator[Served]:
    """A connector on this machine until the block ends."""
    connector = Connector(settings, daemon=daemon, key=key)
    server = WSGIServer(("127.0.0.1", port), connector, log=None)
    server.start()
    try:
        yield Served(connector, f"http://127.0.0.1:{server.server_port}")
    finally:
        connector.stop()
        server.stop(timeout=1)


@final
class Served:
    """A running connector and its address."""

    def __init__(self, connector: Connector, url: str) -> None:
        self.connector = connector
        self.url = url


def _parts(environ: dict[str, Any], limit: int) -> dict[str, bytes]:
    reader = MultipartReader(boundary_of(environ.get("CONTENT_TYPE", "")), {"context": limit})
    body = environ["wsgi.input"]
    while piece := body.read(_TAIL):
        reader.feed(piece)
    return reader.finish()


def _stage(stage: str, state: str, message: str = "") -> bytes:
    told = {"Stage": stage, "State": state, "Obj": "", "Message": message}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A serverless connector on this machine.")
    parser.add_argument("--port", type=int, default=5004)
    parser.add_argument("--home", required=True, help="folder for environments and packages")
    parser.add_argument("--daemon", default="http://127.0.0.1:5002", help="where functions call")
    parser.add_argument("--key", default="", help="the Authorization that it asks for")
    given = parser.parse_args()
    settings = Settings.load({"TIDEGATE_HOME": given.home})
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    with running_connector(settings, daemon=given.daemon, key=given.key, port=given.port) as served:
        print(f"connector on {served.url}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
