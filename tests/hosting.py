"""A real host for tests: link server, plugin processes, environments built by uv.

Environments and uv's cache live beside pytest's own folders and are shared by all runs and lanes
of one user: they are keyed by what they consist of, and building one takes seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gevent.event import Event

from tidegate.backcalls import open_target
from tidegate.environments import Environments
from tidegate.errors import BlobMissing
from tidegate.hosts import PluginHost
from tidegate.link import LinkClient, LinkServer
from tidegate.packages import build_package, open_package
from tidegate.runtime import home
from tidegate.settings import Settings
from tidegate.wire.heads import HostHead, PluginHead
from tidegate.wire.session import request_line

PLUGINS = Path(__file__).parent / "plugins"
WAIT = 30.0


def working_path() -> Path:
    """Where all runs of this user keep environments, packages and uv's cache."""
    path = Path(tempfile.gettempdir()) / f"tidegate-tests-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def host_settings(folder: Path, **variables: object) -> Settings:
    """Settings of a host below ``folder`` that shares environments with all other tests."""
    given = {"TIDEGATE_HOME": folder, "PLUGIN_WORKING_PATH": working_path(), **variables}
    return Settings.load({name: str(value) for name, value in given.items()})


#: What a plugin may see of the environment; more only by TIDEGATE_PLUGIN_ENV.
VARIABLES = frozenset(
    (
        *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        *("VIRTUAL_ENV", "INSTALL_METHOD", "PYTHONUNBUFFERED"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    )
)


class Shelf:
    """Packages by their keys: what the host needs of a blob store."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.loads = 0

    def load(self, key: str) -> bytes:
        self.loads += 1
        if key not in self.blobs:
            raise BlobMissing(f"no blob {key}")
        return self.blobs[key]

    def add(self, data: bytes) -> str:
        """Put a package on the shelf; returns its identifier."""
        identifier = str(open_package(data, limit=1 << 28).identifier)
        self.blobs[f"plugin_packages/{identifier}"] = data
        return identifier


def package_of(
    folder: Path, scratch: Path, *, name: str = "", files: dict[str, str] | None = None
) -> bytes:
    """The package of a plugin's folder, under another name or with other files when given."""
    copy = scratch / f"package-{uuid.uuid4().hex}"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if name:
        manifest = copy / "manifest.yaml"
        text = re.sub(r"(?m)^name: .*$", f"name: {name}", manifest.read_text(), count=1)
        manifest.write_text(text)
    for path, content in (files or {}).items():
        (copy / path).write_text(content)
    return build_package(copy)


class Answer:
    """What one call brought; a ``link.Sink``."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.error: dict[str, Any] | None = None
        self.more = Event()
        self.ended = Event()

    def push(self, body: bytes) -> None:
        self.bodies.append(body)
        self.more.set()

    def fail(self, error: bytes) -> None:
        self.error = json.loads(error)

    def finish(self) -> None:
        self.ended.set()
        self.more.set()

    def wait(self, seconds: float = WAIT) -> Answer:
        """Until it ended; the test fails when it does not."""
        assert self.ended.wait(seconds), f"no end after {seconds} s: {self.texts[-3:]}"
        return self

    def first(self, seconds: float = WAIT) -> Answer:
        """Until the first chunk."""
        assert self.more.wait(seconds), "no chunk"
        return self

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(one) for body in self.bodies for one in body.split(b"\n")]

    @property
    def texts(self) -> list[str]:
        return [chunk["message"]["text"] for chunk in self.chunks]

    @property
    def error_type(self) -> str | None:
        return self.error["error_type"] if self.error else None


class Running:
    """A host and a peer of its link."""

    def __init__(self, settings: Settings, shelf: Shelf, environ: dict[str, str]) -> None:
        self.settings = settings
        self.shelf = shelf
        environments = Environments(settings, environ)
        self.host = PluginHost(settings, shelf, environments, open_target(settings), environ)
        folder = Path(tempfile.mkdtemp(prefix="tg-"))  # short: a socket's path has a limit
        self._folder = folder
        key, path = home.link_key(settings), folder / "host.sock"
        self.server = LinkServer(self.host, key=key, path=path, tcp=settings.tidegate_link_tcp)
        self.host.notify = self.server.notify
        self.server.start()
        self.notices: list[bytes] = []
        self.client = LinkClient(path, key=key, on_notice=self.notices.append)

    def call(
        self,
        identifier: str,
        deed: str,
        *,
        seconds: float = WAIT,
        session: str = "",
        tenant: str = "t",
        **parameters: object,
    ) -> Answer:
        """Open a session of the misbehaving plugin."""
        session = session or str(uuid.uuid4())
        fields = {
            "provider": "misbehave",
            "tool": "act",
            "credentials": {},
            "tool_parameters": {"deed": deed, **parameters},
        }
        line = request_line(
            session,
            user_id="u",
            type="tool",
            action="invoke_tool",
            data=json.dumps(fields).encode(),
        )
        head = PluginHead(
            plugin=identifier,
            session=session,
            type="tool",
            action="invoke_tool",
            tenant=tenant,
            seconds=seconds,
            owner="caller",
        )
        answer = Answer()
        answer.call = self.client.open(head, line, answer)  # type: ignore[attr-defined]
        return answer

    def control(self, op: str, *, seconds: float = 120.0, **params: object) -> Answer:
        """Make a control call and wait for its end."""
        answer = Answer()
        self.client.open(HostHead(op, params, seconds=seconds), b"", answer)
        return answer.wait(seconds + 5)

    def instance(self, identifier: str) -> Any:
        """The process that serves ``identifier`` now."""
        return self.host.supervisor(identifier).instance

    def log_of(self, name: str) -> str:
        """The plugin's log file."""
        path = self.settings.home.logs / "plugins" / f"tidegate/{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def close(self) -> None:
        """End everything; folders of plugins that only this test knows are removed."""
        self.host.stop(grace=0.0)
        self.host.target.close()
        for key in self.shelf.blobs:
            identifier = key.removeprefix("plugin_packages/")
            if "/misbehave-" in identifier:
                self.host.provision.remove(identifier)
        self.client.close()
        self.server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def running_host(
    folder: Path, *, environ: dict[str, str] | None = None, **variables: object
) -> Iterator[Running]:
    """A host with a shelf of its own below ``folder``."""
    given = dict(os.environ) if environ is None else environ
    running = Running(host_settings(folder, **variables), Shelf(), given)
    try:
        yield running
    finally:
        running.close()
