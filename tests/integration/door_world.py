"""A whole door in one process: real rows, blobs, link and gunicorn worker; plugins are functions.

``world()`` gives a :class:`World`. Only the worker and the plugin processes are missing; what
they would do is done by the test: :meth:`World.install` writes the rows that an installation
ends in.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tidegate.api.composition import application_for, services_for
from tidegate.installs import catalogue
from tidegate.jobs.queue_file import QueueFile
from tidegate.runtime.drain import Drain
from tidegate.settings import Settings
from tidegate.storage import declarations, generation, installations, migrate
from tidegate.testing.api_server import served
from tidegate.testing.linked_host import LinkedHost, Plugin, linked_host

TENANT = "0b7f485a-4c47-4aa1-b113-4a18462d122d"
OTHER_TENANT = "1b7f485a-4c47-4aa1-b113-4a18462d122d"
KEY = "secret"
WEATHER = "acme/weather:0.1.2@" + "9f" * 32
FIGURES = {
    "up": 1,
    "sessions": 3,
    "plugins": {
        WEATHER: {"phase": "up"},
        WEATHER.replace("0.1.2", "0.1.1"): {"phase": "idle"},
        WEATHER.replace("weather", "slow"): {"phase": "starting"},
    },
}
WEATHER_DECLARATION = {
    "version": "0.1.2",
    "author": "acme",
    "name": "weather",
    "label": {"en_US": "Weather"},
    "tool": {
        "identity": {"author": "acme", "name": "weather"},
        "tools": [
            {"identity": {"name": "now"}},
            {
                "identity": {"name": "typed"},
                "output_schema": {
                    "type": "object",
                    "properties": {"degrees": {"type": "integer"}},
                    "required": ["degrees"],
                },
            },
        ],
    },
}


class World:
    """The parts of one test's door, and a client."""

    def __init__(self, settings: Settings, host: LinkedHost, drain: Drain) -> None:
        self.settings = settings
        self.host = host
        self.drain = drain
        self.services = services_for(settings)
        self.application = application_for(self.services, drain)
        self.address: tuple[str, int] = ("", 0)

    def install(
        self,
        identifier: str = WEATHER,
        declaration: Mapping[str, Any] | None = None,
        tenant: str = TENANT,
    ) -> str:
        """The rows of an installed plugin; the id of the installation."""
        text = json.dumps(WEATHER_DECLARATION if declaration is None else declaration)
        with self.services.database.write() as conn:
            done = installations.install(conn, tenant, identifier, text, source="package", meta={})
            now = generation.current(conn)
        self.services.catalogue.invalidate(now)
        return done.installation.id

    def declare(self, identifier: str, declaration: Mapping[str, Any]) -> None:
        """The row of an uploaded package."""
        with self.services.database.write() as conn:
            declarations.put_if_absent(conn, identifier, json.dumps(declaration))

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str = KEY,
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request on a connection of its own: (status, body, headers in lower case)."""
        given = {"X-Api-Key": key, **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            given.setdefault("Content-Type", "application/json")
        target = path + ("?" + urlencode(query, doseq=True) if query else "")
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        try:
            connection.request(method, target, body=body, headers=given)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), found
        finally:
            connection.close()

    def envelope(self, method: str, path: str, **request: Any) -> tuple[int, dict[str, Any]]:
        """(status, envelope); an error's message is decoded."""
        status, body, _ = self.call(method, f"/plugin/{TENANT}/{path}", **request)
        return status, opened(json.loads(body))

    def dispatch(
        self, action: str, data: Any, plugin: str = "acme/weather", **body: Any
    ) -> tuple[int, list[dict[str, Any]]]:
        """(status, envelopes) of one call."""
        status, text, _ = self.call(
            "POST",
            f"/plugin/{TENANT}/dispatch/{action}",
            json_body={"data": data, **body},
            headers={"X-Plugin-ID": plugin},
        )
        return status, events(text)


def opened(envelope: dict[str, Any]) -> dict[str, Any]:
    """The envelope with the JSON in its message decoded, as far down as it goes."""
    if envelope["code"] != 0 and isinstance(envelope.get("message"), str):
        envelope["message"] = json.loads(envelope["message"])
        text = envelope["message"]["message"]
        if text.startswith("{"):
            envelope["message"]["message"] = json.loads(text)
    return envelope


def events(text: bytes) -> list[dict[str, Any]]:
    """The envelopes of a stream, read as Dify's client reads them."""
    lines = [line.strip() for line in text.decode().splitlines()]
    return [opened(json.loads(line.removeprefix("data:"))) for line in lines if line]


def error_of(envelope: dict[str, Any]) -> tuple[int, str, Any]:
    """(code, error_type, message) of an envelope."""
    message = envelope["message"]
    return envelope["code"], message["error_type"], message["message"]


@contextmanager
def world(folder: Path, plugins: Mapping[str, Plugin], **environ: str) -> Iterator[World]:
    """A served door with these plugins; nothing of it is left afterwards."""
    given = {"TIDEGATE_HOME": str(folder), "SERVER_KEY": KEY, **environ}
    settings = Settings.load(given)
    for place in (settings.home.run, settings.home.logs, settings.home.keys):
        place.mkdir(parents=True, exist_ok=True)
    migrate(settings)
    drain = Drain()
    answers = {"runtime": {"role": "host"}, "figures": FIGURES}
    with pytest.MonkeyPatch.context() as patch, linked_host(settings, plugins, answers) as host:
        # a watch that begins anew in the middle of a test looks like something left behind
        patch.setattr(catalogue, "REST_AFTER", 3600.0)
        made = World(settings, host, drain)
        try:
            with served(made.application) as made.address:
                yield made
        finally:
            made.services.close()
            for file in list(QueueFile._open.values()):
                file.close()
