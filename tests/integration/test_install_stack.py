"""A real plugin through the real api, worker and host: installed, killed, removed without trace."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosting import working_path
from tests.stack import Stack, running_stack, wait_until
from tidegate.ids import PluginIdentifier
from tidegate.packages import build_package

pytestmark = [
    pytest.mark.limit(180, "starts all four roles; environments are built by uv"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

HELLO = Path(__file__).parents[2] / "examples" / "hello"
BROKEN = b"import sys\nsys.stderr.write('no luck today\\n')\nsys.exit(3)\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One Tidegate for these tests."""
    with running_stack(tmp_path_factory.mktemp("home") / "tidegate") as stack:
        yield stack


def unique(**files: bytes) -> bytes:
    """The sample plugin as a version of its own: other tests share the environments."""
    extra = {name.replace("_", "."): content for name, content in files.items()}
    return build_package(HELLO, extra={"mark.txt": uuid.uuid4().hex.encode(), **extra})


def folder_of(identifier: str) -> Path:
    return working_path() / PluginIdentifier.parse(identifier).folder


def begin_install(stack: Stack, identifier: str) -> str:
    asked = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
    answer = stack.data("POST", "install/identifiers", asked)
    assert not answer["all_installed"]
    return str(answer["task_id"])


def uninstall(stack: Stack, identifier: str) -> float:
    """Seconds until the answer."""
    found = stack.data("GET", "list?page=1&page_size=100")
    rows = found["list"] if isinstance(found, dict) else found
    [row] = [one for one in rows if one["plugin_unique_identifier"] == identifier]
    began = time.monotonic()
    assert stack.data("POST", "uninstall", {"plugin_installation_id": row["id"]}) is True
    return time.monotonic() - began


def is_gone(stack: Stack, identifier: str) -> bool:
    return not folder_of(identifier).exists() and not (stack.home / "plugin" / identifier).exists()


def test_a_plugin_is_installed_called_and_removed(stack: Stack) -> None:
    identifier = stack.upload(unique())
    task = stack.wait_task(begin_install(stack, identifier))
    assert task["status"] == "success", task
    assert task["plugins"][0]["message"] == "installed"
    assert (stack.home / "plugin" / identifier).exists()
    answer = stack.tool("tidegate/hello", "greet", {"name": "tide"})
    assert answer.error is None
    assert answer.texts
    assert uninstall(stack, identifier) < 2
    wait_until(lambda: is_gone(stack, identifier), 30)


def test_D_69_a_plugin_that_does_not_start_says_why_and_leaves_nothing(stack: Stack) -> None:
    identifier = stack.upload(unique(main_py=BROKEN))
    task = stack.wait_task(begin_install(stack, identifier))
    assert task["status"] == "failed"
    message = task["plugins"][0]["message"]
    assert message.startswith("failed to launch plugin: ")
    assert "no luck today" in message
    assert message.count("no luck today") == 1
    wait_until(lambda: is_gone(stack, identifier), 30)
    assert stack.data("GET", f"fetch/identifier?plugin_unique_identifier={identifier}") is False


def test_T_I1_an_install_outlives_its_worker(stack: Stack) -> None:
    identifier = stack.upload(unique())
    os.kill(stack.pid("host"), signal.SIGSTOP)
    try:
        task_id = begin_install(stack, identifier)
        wait_until(lambda: _status(stack, task_id) == "running", 30)
        worker = stack.pid("worker")
        os.kill(worker, signal.SIGKILL)
    finally:
        os.kill(stack.pid("host"), signal.SIGCONT)
    began = time.monotonic()
    task = stack.wait_task(task_id)
    assert task["status"] == "success", task
    assert time.monotonic() - began < 45  # 30 s after the restart, which takes some itself
    assert stack.pid("worker") != worker
    uninstall(stack, identifier)
    wait_until(lambda: is_gone(stack, identifier), 30)


def test_T_K8_an_install_outlives_its_host(stack: Stack) -> None:
    identifier = stack.upload(unique())
    host = stack.pid("host")
    os.kill(host, signal.SIGSTOP)
    task_id = begin_install(stack, identifier)
    wait_until(lambda: _status(stack, task_id) == "running", 30)
    os.kill(host, signal.SIGKILL)
    task = stack.wait_task(task_id)
    assert task["status"] == "success", task
    uninstall(stack, identifier)
    wait_until(lambda: is_gone(stack, identifier), 30)


def _status(stack: Stack, task_id: str) -> str:
    task = stack.data("GET", f"install/tasks/{task_id}")
    return str(task["plugins"][0]["status"])
