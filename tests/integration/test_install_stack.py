"""A real plugin through the real api, worker and host: installed, killed, removed without trace."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Backend
from tests.hosting import working_path
from tests.patience import patience, wait_until
from tests.stack import TENANT, Stack, running_stack
from tidegate.ids import PluginIdentifier
from tidegate.packages import build_package

pytestmark = [
    pytest.mark.limit(180, "starts all four roles; environments are built by uv"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

HELLO = Path(__file__).parents[2] / "examples" / "hello"
BROKEN = b"import sys\nsys.stderr.write('no luck today\\n')\nsys.exit(3)\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Stack]:
    """One Tidegate for these tests."""
    home = tmp_path_factory.mktemp("home") / "tidegate"
    with backend.fresh() as servers, running_stack(home, **servers) as stack:
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
    assert uninstall(stack, identifier) < patience(2)
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


# --------------------------------------------------------------------------- many at once, cancel


def test_T10_a_hundred_parallel_installs_are_one_job_and_one_environment(stack: Stack) -> None:
    """Nothing is built yet: what stands in [tool.uv] makes the environment this test's own."""
    own = f'\n[tool.uv]\ncache-keys = [{{ file = "{uuid.uuid4().hex}" }}]\n'.encode()
    project = (HELLO / "pyproject.toml").read_bytes() + own
    identifier = stack.upload(unique(pyproject_toml=project))
    with ThreadPoolExecutor(100) as clicks:
        [task_id] = set(clicks.map(lambda _: begin_install(stack, identifier), range(100)))
    assert stack.wait_task(task_id)["status"] == "success"
    user = PluginIdentifier.parse(identifier).folder.replace("/", "+")
    users = (working_path() / ".environments").glob(f"*.users/{user}")
    [key] = {path.parent.name.removesuffix(".users") for path in users}
    built = [line for line in logs(stack).splitlines() if "environment built" in line]
    assert sum(key in line for line in built) == 1
    assert stack.tool("tidegate/hello", "greet", {"name": "tide"}).error is None
    uninstall(stack, identifier)
    wait_until(lambda: is_gone(stack, identifier), 30)
    wait_until(lambda: not (working_path() / ".environments" / key).exists(), 30)


def test_T10_a_cancelled_install_answers_at_once_and_leaves_nothing(stack: Stack) -> None:
    """It hangs while it starts, which is as long as an installation can take."""
    identifier = stack.upload(unique(main_py=b"import time\ntime.sleep(3600)\n"))
    task_id = begin_install(stack, identifier)
    wait_until(lambda: runs(identifier), 60)
    began = time.monotonic()
    assert stack.data("POST", f"install/tasks/{task_id}/delete") is True
    assert time.monotonic() - began < patience(2)
    _, raw = stack.ask("GET", f"/plugin/{TENANT}/management/install/tasks/{task_id}")
    assert json.loads(raw)["code"] != 0, "the task is gone"
    wait_until(lambda: is_gone(stack, identifier) and not runs(identifier), 30)
    assert stack.data("GET", f"fetch/identifier?plugin_unique_identifier={identifier}") is False


def runs(identifier: str) -> bool:
    """Whether a process of this version is there."""
    folder = str(folder_of(identifier))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(process / "cwd") == folder:
                return True
    return False


def logs(stack: Stack) -> str:
    """All that the roles have said."""
    return "".join(path.read_text() for path in (stack.home / "logs").glob("*.log"))


# --------------------------------------------------------------------------- under calls


def test_installing_upgrading_and_removing_under_calls_loses_none(stack: Stack) -> None:
    """Each version is in a long call when its end is asked for; a neighbour is called meanwhile."""
    beside = unique(manifest_yaml=manifest(b"name: hello", b"name: beside"))
    stop = threading.Event()
    with ThreadPoolExecutor(4) as calls:
        steady = [calls.submit(greet_until, stop, stack, stack.install(beside))]
        try:
            first = stack.upload(unique())
            second = stack.upload(unique(manifest_yaml=manifest(b"0.0.1", b"0.0.2")))
            assert stack.wait_task(begin_install(stack, first))["status"] == "success"
            steady.append(calls.submit(greet_until, stop, stack, "tidegate/hello"))
            old = long_call(stack, calls)
            upgrade(stack, first, second)
            assert not old.done(), "the upgrade did not wait for it"
            new = long_call(stack, calls)
            stop.set()  # from here on, nobody may begin a call of it
            assert all(call.result(60) for call in steady)
            uninstall(stack, second)
            assert [whole.result(60) for whole in (old, new)] == [LONG * SENTENCE] * 2
        finally:
            stop.set()
    for identifier in (first, second):
        wait_until(lambda identifier=identifier: is_gone(stack, identifier), 60)
    [row] = stack.data("GET", "list?page=1&page_size=100")["list"]
    uninstall(stack, row["plugin_unique_identifier"])


LONG = 40
"""Sentences of a long call: 6 words each, 50 ms after each word."""
SENTENCE = "Hello, tide! Nice to meet you.\n"


def manifest(before: bytes, after: bytes) -> bytes:
    """That of the sample plugin, changed."""
    return (HELLO / "manifest.yaml").read_bytes().replace(before, after)


def greet_until(stop: threading.Event, stack: Stack, plugin: str) -> int:
    """How many calls came back whole; the test fails at the first that did not."""
    done = 0
    while not stop.is_set():
        assert greeting(stack, plugin) == SENTENCE
        done += 1
    return done


def greeting(stack: Stack, plugin: str, count: int = 1, **more: Any) -> str:
    parameters = {"name": "tide", "count": count}
    data = {"provider": "hello", "tool": "greet", "tool_parameters": parameters, "credentials": {}}
    answer = stack.call(plugin, "tool/invoke", data, **more)
    assert answer.error is None, answer.error
    return "".join(answer.texts)


def long_call(stack: Stack, calls: ThreadPoolExecutor) -> Future[str]:
    """A long call that has begun to stream."""
    streams = threading.Event()
    whole = calls.submit(
        greeting, stack, "tidegate/hello", LONG, on_item=lambda item: streams.set()
    )
    assert streams.wait(30)
    return whole


def upgrade(stack: Stack, old: str, new: str) -> None:
    asked = {
        "original_plugin_unique_identifier": old,
        "new_plugin_unique_identifier": new,
        "source": "package",
        "meta": {},
    }
    task = stack.wait_task(stack.data("POST", "install/upgrade", asked)["task_id"])
    assert task["status"] == "success", task
