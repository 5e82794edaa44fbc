"""A developer's loop through the whole product: key over HTTP, real SDK, calls over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.debugging import SdkProcess
from tests.hosting import Shelf, host_settings
from tests.patience import patience, wait_until
from tests.stack import TENANT, Stack, free_port, running_stack
from tidegate.environments import Environments
from tidegate.hosts.provision import Provision
from tidegate.packages import build_package

pytestmark = [
    pytest.mark.limit(240, "starts all four roles and plugins with the real SDK"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

HELLO = Path(__file__).parents[2] / "examples" / "hello"
PLUGIN = "tidegate/hello"


class Desk:
    """A developer's desk: the plugin's folder, an interpreter, a running server."""

    def __init__(self, stack: Stack, folder: Path, python: Path, port: int) -> None:
        self.stack = stack
        self.folder = folder
        self._python = python
        self._port = port

    @property
    def key(self) -> str:
        _, body = self.stack.ask("POST", f"/plugin/{TENANT}/debugging/key")
        return str(json.loads(body)["data"]["key"])

    def write(self, greeting: str) -> None:
        """Change the code."""
        path = self.folder / "tools" / "greet.py"
        path.write_text((HELLO / "tools" / "greet.py").read_text().replace("Hello", greeting))

    @contextmanager
    def running(self) -> Iterator[SdkProcess]:
        process = SdkProcess(self._python, self.folder, self._port, self.key)
        try:
            yield process
        finally:
            process.close()

    def greeting(self) -> str:
        """The first word that a call brings; empty when it fails."""
        answer = self.stack.tool(PLUGIN, "greet", {"name": "you"})
        return answer.texts[0].strip(" ,") if answer.texts and not answer.error else ""

    def installed(self) -> dict[str, str] | None:
        """The plugin in the list that Dify shows."""
        rows = self.stack.data("GET", "list?page=1&page_size=10")["list"]
        return next((row for row in rows if row["plugin_id"] == PLUGIN), None)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    settings = host_settings(folder)
    shelf = Shelf()
    provision = Provision(settings, shelf, Environments(settings))
    prepared = provision.prepare(shelf.add(build_package(HELLO)), lambda step, message: None)
    shutil.copytree(HELLO, folder / "hello", ignore=shutil.ignore_patterns("__pycache__"))
    port = free_port()
    given = {"PLUGIN_REMOTE_INSTALLING_HOST": "127.0.0.1"}
    with running_stack(
        folder / "tidegate", **given, PLUGIN_REMOTE_INSTALLING_PORT=str(port)
    ) as stack:
        yield Desk(stack, folder / "hello", prepared.python, port)


def test_T36_new_code_is_callable_at_once_and_the_old_is_gone(desk: Desk):
    for greeting in ("Moin", "Servus", "Ahoy"):
        desk.write(greeting)
        with desk.running():
            wait_until(lambda: (desk.installed() or {}).get("runtime_type") == "remote")
            began = time.monotonic()
            wait_until(lambda greeting=greeting: desk.greeting() == greeting)
            assert time.monotonic() - began < patience(1.5)
        wait_until(lambda: desk.installed() is None)


def test_D_55_an_installed_plugin_is_shadowed_and_comes_back(desk: Desk):
    desk.stack.install(build_package(HELLO))
    assert desk.greeting() == "Hello"
    before = desk.installed()
    desk.write("Grüezi")
    with desk.running():
        wait_until(lambda: desk.greeting() == "Grüezi")
        assert desk.installed()["id"] == before["id"]
        assert desk.installed()["source"] == "remote"
    wait_until(lambda: desk.greeting() == "Hello")
    assert desk.installed()["plugin_unique_identifier"] == before["plugin_unique_identifier"]


def test_a_host_that_is_killed_has_the_debugged_plugin_again_when_the_sdk_comes_back(desk: Desk):
    desk.write("Nochmal")
    with desk.running():
        wait_until(lambda: desk.greeting() == "Nochmal")
        killed = desk.stack.pid("host")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{killed}").exists())
        wait_until(lambda: desk.greeting() == "Nochmal")
    wait_until(lambda: desk.greeting() == "Hello")
