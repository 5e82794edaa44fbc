"""A real host for tests of back-calls: the host's own composition, real SDK plugins, a caller.

with back_call_world(home, **dify.environ) as world:
    backcaller = world.add(PLUGINS / "backcaller")
    results = world.ask(backcaller, "llm")
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent

from tests.hosting import PLUGINS, Answer, host_settings, package_of
from tidegate import host_entrypoint
from tidegate.link import LinkClient
from tidegate.packages import open_package
from tidegate.runtime import link_key, link_socket
from tidegate.settings import Settings
from tidegate.storage import Database, installations, migrate
from tidegate.storage.blobs import Layout, open_blobs
from tidegate.wire.heads import PluginHead
from tidegate.wire.session import request_line

TENANT = "0198c5d2-0000-7000-8000-00000000000b"


class TimedAnswer(Answer):
    """Knows how long after its last chunk its end came."""

    def __init__(self) -> None:
        super().__init__()
        self.last_chunk = 0.0
        self.closing = 0.0

    def push(self, body: bytes) -> None:
        self.last_chunk = time.monotonic()
        super().push(body)

    def finish(self) -> None:
        self.closing = time.monotonic() - self.last_chunk
        super().finish()


class World:
    """Host, database, blobs, and a peer of the link."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        migrate(settings)
        self.database = Database(settings)
        self.host, self.server = host_entrypoint.compose(settings)
        self.server.start()
        self.client = LinkClient(
            link_socket(settings), key=link_key(settings), on_notice=lambda body: None
        )
        self._folders: list[str] = []

    def add(self, folder: Path, **changes: Any) -> str:
        """Package, store, install for the tenant, start; its identifier."""
        data = package_of(folder, self.settings.home.root, **changes)
        package = open_package(data, limit=1 << 28)
        identifier = str(package.identifier)
        open_blobs(self.settings).save(Layout(self.settings).package(identifier), data)
        declaration = json.dumps(package.declaration(verified=True))
        with self.database.write() as conn:
            installations.install(conn, TENANT, identifier, declaration, source="package")
        self._folders.append(identifier)
        self.host.supervisor(identifier).ensure_up()
        return identifier

    def open(
        self, identifier: str, type: str, action: str, data: dict[str, Any], *,
        tenant: str = TENANT, user: str = "u1", seconds: float = 60.0, session: str = "",
        trace: str = "",
    ) -> Answer:  # fmt: skip
        """Open a session of any plugin."""
        session = session or str(uuid.uuid4())
        line = request_line(
            session, user_id=user, type=type, action=action, data=json.dumps(data).encode()
        )
        head = PluginHead(
            identifier, session, type, action, tenant, seconds, "caller", user=user, trace=trace
        )
        answer = TimedAnswer()
        answer.call = self.client.open(head, line, answer)  # type: ignore[attr-defined]
        return answer

    def start(self, identifier: str, what: str, given: dict[str, Any], **more: Any) -> Answer:
        """Open a session of the backcaller's tool."""
        data = {
            "provider": "backcaller",
            "tool": "ask",
            "credentials": {},
            "tool_parameters": {"what": what, **given},
        }
        return self.open(identifier, "tool", "invoke_tool", data, **more)

    def start_agent(self, identifier: str, what: str, given: dict[str, Any]) -> Answer:
        """Open a session of the backagent's strategy."""
        data = {
            "agent_strategy_provider": "backagent",
            "agent_strategy": "ask",
            "agent_strategy_params": {"what": what, **given},
        }
        return self.open(identifier, "agent_strategy", "invoke_agent_strategy", data)

    def add_agent(self) -> str:
        """The backagent, with what the backcaller can ask."""
        asking = (PLUGINS / "backcaller" / "asking.py").read_text(encoding="utf-8")
        return self.add(PLUGINS / "backagent", files={"asking.py": asking})

    def ask(self, identifier: str, what: str, **given: Any) -> list[Any]:
        """The results of one function of the backcaller; the test fails when the call does."""
        answer = self.start(identifier, what, given).wait()
        assert answer.error is None, answer.error
        return results(answer)

    def endpoint(self, identifier: str, body: dict[str, Any]) -> list[Any]:
        """The same through the backcaller's endpoint."""
        text = json.dumps(body).encode()
        head = (
            "POST /ask HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n"
        )
        data = {"raw_http_request": (head.encode() + text).hex(), "settings": {}}
        answer = self.open(identifier, "endpoint", "invoke_endpoint", data, user="").wait()
        assert answer.error is None, answer.error
        found = b"".join(bytes.fromhex(one["result"]) for one in answer.chunks if "result" in one)
        return [json.loads(line) for line in found.splitlines()]

    def instance(self, identifier: str) -> Any:
        """The process that serves ``identifier`` now."""
        return self.host.supervisor(identifier).instance

    @property
    def idle(self) -> bool:
        """Whether no session and no back-call is open anywhere."""
        instances = [one for each in self.host.supervisors for one in each.instances]
        open_ones = sum(one.load + one.table.backcalls for one in instances)
        return open_ones + self.host.target.running == 0

    def wait_idle(self, seconds: float = 5.0) -> bool:
        """Whether that comes true in time."""
        with gevent.Timeout(seconds, False):
            while not self.idle:
                gevent.sleep(0.01)
        return self.idle

    def close(self) -> None:
        self.host.stop(grace=0.0)
        self.host.target.close()
        for identifier in self._folders:
            self.host.provision.remove(identifier)
        self.client.close()
        self.server.stop()
        self.database.dispose()


def results(answer: Answer) -> list[Any]:
    """The objects in the json messages of a tool."""
    return [one["message"]["json_object"] for one in answer.chunks if one["type"] == "json"]


@contextmanager
def back_call_world(home: Path, **variables: object) -> Iterator[World]:
    """A world below ``home``; the settings are those of a host."""
    world = World(host_settings(home, SERVER_KEY="key of the test", **variables))
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(home, ignore_errors=True)
