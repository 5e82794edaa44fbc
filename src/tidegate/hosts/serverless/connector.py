"""The connector: who builds a package and runs it as a function (spec/plugin/03 section 3).

| call   | when |
|--------|------|
| ping   | the host starts; without an answer it does not |
| find   | before a launch: is there a function for this version already |
| launch | installation and reinstallation; a stream of stages |
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final
from urllib.parse import quote

import gevent

from tidegate.clock import GIVE_WAY
from tidegate.environments import Progress
from tidegate.errors import ConnectorFailed, StartRefused
from tidegate.ids import PluginIdentifier
from tidegate.runtime.http_pool import CannotConnect, HttpPool
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log
from tidegate.wire.connector import MOST_LAUNCH_LINE, Function, Launch, package_name, read_instances

log = get_log("hosts")

_SECONDS: Final = 60.0
_MOST_ANSWER: Final = 1 << 20
_URL: Final = "DIFY_PLUGIN_SERVERLESS_CONNECTOR_URL"
_LAUNCH_LIMIT: Final = "DIFY_PLUGIN_SERVERLESS_CONNECTOR_LAUNCH_TIMEOUT"


@final
class Connector:
    """Asks the connector. Every method waits and raises ConnectorFailed with the reason."""

    def __init__(self, settings: Settings, pool: HttpPool) -> None:
        self._base = settings.dify_plugin_serverless_connector_url.rstrip("/")
        self._key = settings.dify_plugin_serverless_connector_api_key
        self._launch_seconds = float(settings.dify_plugin_serverless_connector_launch_timeout)
        self._pool = pool

    def ping(self) -> None:
        """StartRefused when the connector does not answer as one."""
        if not self._base.startswith(("http://", "https://")):
            raise StartRefused(f"PLATFORM=serverless needs {_URL}: the connector's http address")
        try:
            status, body = self._ask("POST", "/ping")
        except ConnectorFailed as error:
            raise StartRefused(f"the connector does not answer ({_URL}): {error}") from None
        if status != http.HTTPStatus.OK or body.strip().strip(b'"') != b"pong":
            raise StartRefused(f"{self._base} is no connector ({_URL}): it answered {status}")

    def find(self, identifier: PluginIdentifier) -> Function | None:
        """The function that runs this version already, if there is one."""
        name = quote(package_name(identifier), safe="")
        status, body = self._ask("GET", f"/v1/runner/instances?filename={name}")
        if status != http.HTTPStatus.OK:
            raise _refused(status, body)
        return read_instances(body)

    def launch(
        self, identifier: PluginIdentifier, package: bytes, *, verified: bool, progress: Progress
    ) -> Function:
        """Build and launch. The function when the connector says that it runs."""
        # Random: a package may hold any bytes, those of a fixed one as well.
        boundary = secrets.token_hex(16)
        headers = {
            "Authorization": self._key.reveal(),
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        }
        body = _form(boundary, identifier, package, verified=verified)
        launch = Launch()
        with (
            self._limited(self._launch_seconds, _LAUNCH_LIMIT),
            self._pool.exchange(
                "POST", f"{self._base}/v1/launch", headers=headers, body=body
            ) as response,
        ):
            if response.status != http.HTTPStatus.OK:
                raise _refused(response.status, response.read(_MOST_ANSWER))
            for line in _lines(response):
                told = launch.take(line)
                # Not at the end of the answer: its connection may stay open.
                if launch.done:
                    break
                if told is not None:
                    progress(*told)
        return _launched(launch)

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        # As it is, without a scheme: that is the connector's protocol.
        headers = {"Authorization": self._key.reveal()}
        with (
            self._limited(_SECONDS, "limit of the connector's answers"),
            self._pool.exchange(method, self._base + path, headers=headers) as response,
        ):
            return response.status, response.read(_MOST_ANSWER)

    @contextmanager
    def _limited(self, seconds: float, owner: str) -> Iterator[None]:
        limit = gevent.Timeout(seconds)
        limit.start()
        try:
            yield
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            raise ConnectorFailed(
                f"the connector took longer than {seconds:g} s ({owner})"
            ) from None
        except CannotConnect as error:
            raise ConnectorFailed(str(error)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ConnectorFailed(
                f"the connector's answer broke off: {error or type(error).__name__}"
            ) from None
        finally:
            limit.close()


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline(MOST_LAUNCH_LINE):
        yield line
        gevent.sleep(GIVE_WAY)  # a log of a build comes as fast as it is read


def _launched(launch: Launch) -> Function:
    if not launch.done:
        raise ConnectorFailed("the connector's answer broke off before the launch ended")
    # An "end" without them came, in the reference's words for it.
    if not launch.function.url or not launch.function.name:
        raise ConnectorFailed("Internal server error, failed to get lambda url or function name")
    return launch.function


def _refused(status: int, body: bytes) -> ConnectorFailed:
    text = body[:2000].decode("utf-8", "replace").strip()
    return ConnectorFailed(
        f"request failed with status code: {status} and respond with: {text}", status=status
    )


def _form(boundary: str, identifier: PluginIdentifier, package: bytes, *, verified: bool) -> bytes:
    name = package_name(identifier)
    metadata = json.dumps({"plugin_unique_identifier": str(identifier)})
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    fields = (("verified", "true" if verified else "false"), ("metadata", metadata))
    texts = "".join(f'{head}{field}"\r\n\r\n{value}\r\n' for field, value in fields)
    file = f'{head}context"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return texts.encode() + file.encode() + package + f"\r\n--{boundary}--\r\n".encode()
