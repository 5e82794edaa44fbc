"""A host that listens for debugged plugins, and the two kinds of developers that connect to it.

with debugging_host(home) as world:
    with world.sdk() as process: ...            # the real SDK with INSTALL_METHOD=remote
    with world.developer() as developer: ...    # a socket that says what the test wants
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent.os import nb_read

from tests.hosting import PLUGINS, Running, Shelf, host_settings, package_of
from tests.registrations import ICON, MANIFEST, TOOL
from tidegate.backcalls import open_target
from tidegate.backcalls.plugin_storage import PluginStorage
from tidegate.environments import Child, spawn
from tidegate.hosts import Debugging
from tidegate.hosts.debugging import Limits
from tidegate.storage import Database, debug_keys, declarations, installations, migrate
from tidegate.storage.blobs import open_blobs
from tidegate.storage.installations import Installation

TENANT = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
OTHER_TENANT = "1b7f485a-4c47-4aa1-b113-4a18462d122d"
MISBEHAVE = PLUGINS / "misbehave"


def messages(
    manifest: dict[str, Any] | None = None, *, tool: Any = TOOL, icon: bytes = ICON
) -> list[dict[str, Any]]:
    """A registration behind the handshake, as the SDK sends it."""
    chunk = {"filename": "icon.svg", "data": base64.b64encode(icon).decode(), "end": True}
    return [
        {"type": "manifest_declaration", "data": manifest or MANIFEST},
        {"type": "tool_declaration", "data": [tool]},
        {"type": "asset_chunk", "data": chunk},
        {"type": "end", "data": {}},
    ]


class Developer:
    """A connection that says what the test wants."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._held = b""

    def say(self, *lines: dict[str, Any]) -> None:
        """Send messages, each with a blank line behind it."""
        self.socket.sendall(b"".join(json.dumps(one).encode() + b"\n\n" for one in lines))

    def handshake(self, key: str) -> None:
        self.say({"type": "handshake", "data": {"key": key}})

    def register(self, key: str, **given: Any) -> None:
        """The whole registration."""
        self.handshake(key)
        self.say(*messages(**given))

    def line(self) -> bytes:
        """The next line that comes; empty at the end."""
        while b"\n" not in self._held:
            data = self.socket.recv(1 << 16)
            if not data:
                return b""
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line

    def request(self) -> dict[str, Any]:
        """The next request line."""
        return json.loads(self.line())

    def answer(self, session: str, type: str, data: Any) -> None:
        """One message of a session."""
        body = {"type": type, "data": data}
        self.say({"event": "session", "session_id": session, "data": body})

    def text(self, session: str, text: str) -> None:
        self.answer(session, "stream", {"type": "text", "message": {"text": text}, "meta": None})

    def is_closed(self, seconds: float = 5.0) -> bool:
        """Whether the other end closes within that time."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True


class SdkProcess:
    """The misbehaving plugin, run by its developer with the real SDK."""

    def __init__(self, python: Path, folder: Path, port: int, key: str) -> None:
        self.python = python
        self.folder = folder
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "INSTALL_METHOD": "remote",
            "REMOTE_INSTALL_URL": f"127.0.0.1:{port}",
            "REMOTE_INSTALL_KEY": key,
            "PYTHONUNBUFFERED": "1",
        }
        command = [str(python), "-m", "main"]
        self.child: Child = spawn(command, folder=folder, environment=environ, merge=True)
        self.output = b""
        self._closed = False
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        os.set_blocking(self.child.stdout, False)
        while True:
            data = nb_read(self.child.stdout, 1 << 16)
            if not data:
                return
            self.output += data

    def stop_and_go(self, number: int) -> None:
        """Send it a signal: SIGSTOP, SIGCONT."""
        self.child.signal(number)

    def close(self) -> None:
        """End it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.child.signal(signal.SIGCONT)
        self.child.kill()
        self.child.wait(10)
        self._reader.join(5)
        self._reader.kill()
        for fd in (self.child.stdin, self.child.stdout):
            os.close(fd)


class DebugWorld(Running):
    """A host with a debugging listener and rows of its own."""

    def __init__(self, home: Path, limits: Limits | None, **variables: object) -> None:
        settings = host_settings(
            home,
            PLUGIN_REMOTE_INSTALLING_HOST="127.0.0.1",
            PLUGIN_REMOTE_INSTALLING_PORT=0,
            **variables,
        )
        super().__init__(settings, Shelf(), dict(os.environ))
        migrate(settings)
        self.database = Database(settings)
        self.blobs = open_blobs(settings)
        storage = PluginStorage(settings, self.database, self.blobs)
        self.host.target = open_target(settings, storage=storage)
        self.debugging = self.make_debugging(limits)
        self.start()

    def make_debugging(self, limits: Limits | None = None) -> Debugging:
        """A runtime as the host's entry file makes it."""
        return Debugging(
            self.settings,
            self.database,
            self.blobs,
            self.host.target,
            log_of=self.host.log_of,
            notify=self.server.notify,
            limits=limits,
            address=self.address,
        )

    @property
    def address(self) -> str:
        """Where other hosts reach its link."""
        if self.settings.tidegate_link_tcp:
            return f"127.0.0.1:{self.server.tcp_port}"
        return str(self._folder / "host.sock")

    def start(self) -> None:
        """Serve, and wait until somebody can connect."""
        self.host.runtimes = [self.debugging]
        self.host.others = self.debugging.elsewhere
        self.host.start()
        self.until(lambda: self.debugging.port)

    def key(self, tenant: str = TENANT) -> str:
        """The tenant's debugging key."""
        with self.database.write() as conn:
            return debug_keys.fetch(conn, tenant)

    def installation(self, plugin_id: str, tenant: str = TENANT) -> Installation | None:
        with self.database.read() as conn:
            return installations.find(conn, tenant, plugin_id)

    def declaration(self, identifier: str) -> dict[str, Any] | None:
        with self.database.read() as conn:
            found = declarations.get(conn, identifier)
        return json.loads(found.text) if found else None

    def until(self, check: Any, seconds: float = 20.0) -> Any:
        """What ``check`` gives once it gives something."""
        end = time.monotonic() + seconds
        while not (found := check()):
            assert time.monotonic() < end, "it did not happen in time"
            gevent.sleep(0.005)
        return found

    def connected(self, plugin_id: str, tenant: str = TENANT) -> str:
        """The identifier of the debugged version, once its rows are there."""

        def there() -> str:
            row = self.installation(plugin_id, tenant)
            debugged = row is not None and row.runtime_type == "remote"
            return row.identifier if debugged else ""

        return self.until(there)

    @contextmanager
    def developer(self) -> Iterator[Developer]:
        made = Developer(self.debugging.port)
        try:
            yield made
        finally:
            made.socket.close()

    @contextmanager
    def sdk(self, key: str = "") -> Iterator[SdkProcess]:
        """The misbehaving plugin in its developer's hands."""
        identifier = self.shelf.add(package_of(MISBEHAVE, self.settings.home.root))
        prepared = self.host.provision.prepare(identifier, lambda step, message: None)
        made = SdkProcess(prepared.python, prepared.folder, self.debugging.port, key or self.key())
        try:
            yield made
        finally:
            made.close()

    def close(self) -> None:
        super().close()
        self.database.dispose()


@contextmanager
def debugging_host(
    home: Path, limits: Limits | None = None, **variables: object
) -> Iterator[DebugWorld]:
    """A host of which developers can be."""
    world = DebugWorld(home, limits, **variables)
    try:
        yield world
    finally:
        world.close()
