"""A user's desk: Dify's client, its inner API and a whole Tidegate, for tests of what users do.

Fixtures ``shared`` (module) and ``desk`` are taken by importing them by their names.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.databases import Backend
from tests.fake_dify import Exchange, FakeDify, fake_dify
from tests.integration.dify_client import DifyClient, merged
from tests.integration.dify_stub import opened, sealed
from tests.stack import Stack, free_port, running_stack

GREET = {"provider": "hello", "tool": "greet", "credentials": {}, "credential_type": "api-key"}
TALK = {"user_id": "u", "conversation_id": None, "app_id": str(uuid.uuid4()), "message_id": None}


class Desk:
    """A user's Dify: its client, its inner API, the server behind."""

    def __init__(self, stack: Stack, dify: FakeDify, client: DifyClient, debug_port: int) -> None:
        self.stack = stack
        self.dify = dify
        self.client = client
        self.debug_port = debug_port

    def install(self, package: bytes) -> str:
        """Upload and install as the plugin page does; the identifier."""
        identifier = str(self.client.upload(package)["unique_identifier"])
        asked = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
        answer = self.client.post("management/install/identifiers", asked)
        if not answer["all_installed"]:
            task = self.client.wait_task(answer["task_id"])
            assert task["status"] == "success", task
        return identifier

    def row(self, name: str) -> dict[str, Any] | None:
        """The plugin as the list shows it."""
        page = self.client.get(
            "management/list", page=1, page_size=256, response_type="paged"
        )  # fmt: skip
        assert page["total"] == len(page["list"])
        return next((row for row in page["list"] if row["name"] == name), None)

    def greet(self, name: str) -> str:
        """What the sample tool says."""
        data = {**GREET, "tool_parameters": {"name": name}}
        messages = merged(self.client.stream("tool/invoke", "tidegate/hello", data, **TALK))
        return "".join(one["message"]["text"] for one in messages)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> Iterator[tuple[Stack, FakeDify, int]]:
    """What is expensive: a stack, its Dify, the port for developers."""
    home, port = tmp_path_factory.mktemp("dify") / "tidegate", free_port()
    variables = {
        "PLUGIN_REMOTE_INSTALLING_HOST": "127.0.0.1",
        "PLUGIN_REMOTE_INSTALLING_PORT": str(port),
    }
    with fake_dify() as dify, backend.fresh() as servers:
        dify.keeps_alive = False
        given = {**variables, **dify.environ, **servers}
        with running_stack(home, **given) as stack:
            yield stack, dify, port


@pytest.fixture
def desk(shared: tuple[Stack, FakeDify, int]) -> Iterator[Desk]:
    """A user who begins: nothing was asked yet, no connection is open."""
    stack, dify, port = shared
    dify.calls.clear()
    dify.on("invoke/encrypt", crypt)
    with closing(DifyClient(stack.port, stack.key)) as client:
        yield Desk(stack, dify, client, port)


def crypt(exchange: Exchange) -> Any:
    """What Dify does for settings of endpoints."""
    change = {"encrypt": sealed, "decrypt": opened}.get(exchange.body["opt"], str)
    secrets = {one["name"] for one in exchange.body["config"] if one["type"] == "secret-input"}
    data = exchange.body["data"]
    return {"data": {name: change(v) if name in secrets else v for name, v in data.items()}}
