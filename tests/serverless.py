"""Everything that PLATFORM=serverless needs, in one process: api, host, connector, functions.

with serverless_world(home) as world:
    identifier = world.install(package)
    world.tool(identifier, "stream", count=3).texts
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent

from tests.hosting import working_path
from tidegate.api.composition import application_for, services_for
from tidegate.backcalls import open_target
from tidegate.backcalls.plugin_storage import PluginStorage
from tidegate.deadline import Deadline
from tidegate.environments import Environments
from tidegate.hosts import PluginHost, Serverless
from tidegate.jobs.queue_file import QueueFile
from tidegate.link import LinkServer
from tidegate.packages import open_package
from tidegate.runtime import home as runtime_home
from tidegate.runtime.drain import Drain
from tidegate.settings import Settings
from tidegate.storage import Database, declarations, installations, migrate
from tidegate.storage.blobs import open_blobs
from tidegate.testing.api_server import served
from tidegate.testing.connector import Connector, running_connector

TENANT = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
ADMIN = "admin-admin-admin"
KEY = "secret"


class Call:
    """What one dispatch call brought."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        lines = [line for line in body.decode().splitlines() if line.strip()]
        self.envelopes = [json.loads(line.removeprefix("data:")) for line in lines]
        self.items = [one["data"] for one in self.envelopes if one["code"] == 0]

    @property
    def texts(self) -> list[str]:
        return [one["message"]["text"] for one in self.items if one.get("type") == "text"]

    @property
    def error(self) -> dict[str, Any] | None:
        """The innermost error."""
        if not self.envelopes or self.envelopes[-1]["code"] == 0:
            return None
        found = json.loads(self.envelopes[-1]["message"])
        while found["message"].startswith("{"):
            found = json.loads(found["message"])
        return found


class ServerlessWorld:
    """Made by :func:`serverless_world`."""

    def __init__(self, settings: Settings, connector: Connector) -> None:
        self.settings = settings
        self.connector = connector
        for place in (settings.home.run, settings.home.logs, settings.home.keys):
            place.mkdir(parents=True, exist_ok=True)
        migrate(settings)
        self.database = Database(settings)
        self.blobs = open_blobs(settings)
        target = open_target(settings, storage=PluginStorage(settings, self.database, self.blobs))
        self.host = PluginHost(settings, self.blobs, Environments(settings), target)
        path = runtime_home.link_socket(settings)
        self.server = LinkServer(self.host, key=runtime_home.link_key(settings), path=path)
        self.serverless = Serverless(
            settings,
            self.database,
            target,
            package_of=self.host.provision.package,
            log_of=self.host.log_of,
            notify=self.server.notify,
        )
        self.host.runtimes = [self.serverless]
        self.services = services_for(settings)
        self.application = application_for(self.services, Drain())
        self.address: tuple[str, int] = ("", 0)

    def start(self) -> None:
        self.host.start()
        self.server.start()

    def close(self) -> None:
        self.services.close()
        self.host.stop(grace=0.0)
        self.host.target.close()
        self.server.stop()
        self.database.dispose()
        for file in list(QueueFile._open.values()):
            file.close()

    # ------------------------------------------------------------------ plugins

    def upload(self, package: bytes) -> str:
        """An uploaded package's identifier."""
        return str(self.services.installer.upload(TENANT, package, False).identifier)

    def install(self, package: bytes) -> str:
        """Upload, launch, and write the tenant's rows."""
        identifier = self.upload(package)
        self.control("install", identifier=identifier)
        self.own(identifier)
        return identifier

    def own(self, identifier: str) -> None:
        """The rows that an installation ends in."""
        with self.database.write() as conn:
            text = declarations.get(conn, identifier).text
            installations.install(
                conn, TENANT, identifier, text, source="package", runtime_type="serverless"
            )
        self.services.catalogue.invalidate(1 << 30)

    def forge(self, identifier: str, declaration: dict[str, Any], url: str) -> str:
        """A version whose function is at ``url``; no package, no connector."""
        from tidegate.ids import PluginIdentifier
        from tidegate.storage import serverless_runtimes

        with self.database.write() as conn:
            declarations.put_if_absent(conn, identifier, json.dumps(declaration))
            serverless_runtimes.put(conn, PluginIdentifier.parse(identifier), url, "forged")
        self.own(identifier)
        return identifier

    def control(self, op: str, *, seconds: float = 60.0, **params: Any) -> list[dict[str, Any]]:
        """A control call's answers; raises what it ended with."""
        return list(self.services.calls.host(op, params, Deadline.after(seconds, "test")))

    # ------------------------------------------------------------------ requests

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request: (status, body, headers in lower case)."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, {"X-Api-Key": KEY, **given})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), found
        finally:
            connection.close()

    def dispatch(self, plugin: str, action: str, data: Any) -> Call:
        """One dispatch call, read to its end."""
        body = json.dumps({"user_id": "u", "data": data}).encode()
        status, text, _ = self.ask(
            "POST",
            f"/plugin/{TENANT}/dispatch/{action}",
            body,
            X_Plugin_ID=plugin,
            Content_Type="application/json",
        )
        return Call(status, text)

    def tool(self, identifier: str, deed: str, **parameters: Any) -> Call:
        """A deed of the misbehaving plugin."""
        data = {
            "provider": "misbehave",
            "tool": "act",
            "credentials": {},
            "tool_parameters": {"deed": deed, **parameters},
        }
        return self.dispatch(identifier.partition(":")[0], "tool/invoke", data)


@contextmanager
def serverless_world(folder: Path, **variables: object) -> Iterator[ServerlessWorld]:
    """A world below ``folder``; environments are shared with all other tests."""
    given: dict[str, object] = {
        "TIDEGATE_HOME": folder,
        "PLUGIN_WORKING_PATH": working_path(),
        "SERVER_KEY": KEY,
        "PLATFORM": "serverless",
        "FORCE_VERIFYING_SIGNATURE": "false",
        "ADMIN_API_ENABLED": "true",
        "ADMIN_API_KEY": ADMIN,
        "DIFY_PLUGIN_SERVERLESS_CONNECTOR_API_KEY": "connect",
        **variables,
    }
    names = {name: str(value) for name, value in given.items()}
    with running_connector(Settings.load(names), key="connect") as found:
        names["DIFY_PLUGIN_SERVERLESS_CONNECTOR_URL"] = found.url
        world = ServerlessWorld(Settings.load(names), found.connector)
        try:
            world.start()
            with served(world.application) as world.address:
                found.connector.daemon = f"http://127.0.0.1:{world.address[1]}"
                yield world
        finally:
            world.close()
            gevent.sleep(0)


__all__ = ["ADMIN", "KEY", "TENANT", "Call", "ServerlessWorld", "open_package", "serverless_world"]
