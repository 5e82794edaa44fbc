"""`/metrics/` of a real Tidegate with two api processes: everything once, whoever answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.stack import Stack, running_stack
from tidegate.packages import build_package
from tidegate.telemetry.snapshots import FOLDER, Totals, read_others

pytestmark = [
    pytest.mark.limit(180, "starts all four roles twice; environments are built by uv"),
    pytest.mark.blocks_hub("starts processes, builds packages"),
]

HELLO = Path(__file__).parents[2] / "examples" / "hello"
PLUGIN = "tidegate/hello"
EACH = 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("metrics") / "tidegate"
    with running_stack(home, SERVER_WORKER_AMOUNT="2") as stack:
        wait_until(lambda: len(sharing(stack)) == 2)
        stack.install(build_package(HELLO))
        yield stack


def api_processes(stack: Stack) -> set[int]:
    """Process ids below Gunicorn's master."""
    master = stack.pid("api")
    children = Path(f"/proc/{master}/task/{master}/children").read_text()
    return {int(pid) for pid in children.split()}


def sharing(stack: Stack) -> set[int]:
    """Ids of the api processes that live and share what they count."""
    files = (stack.home / "run" / FOLDER).glob("api-*.lock")
    return {int(path.name.split("-")[1]) for path in files} & api_processes(stack)


@contextmanager
def answering(stack: Stack, pid: int) -> Iterator[None]:
    """Only this api process serves: the others are stopped meanwhile."""
    others = api_processes(stack) - {pid}
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def written(stack: Stack, name: str) -> float:
    """What stands in the files of all processes."""
    totals = Totals()
    for one in read_others(stack.home / "run" / FOLDER):
        totals.add(one.grown)
    return sum(sum(values) for values in totals.values.get(name, {}).values())


def worker_files(stack: Stack) -> set[int]:
    """Ids of the worker processes that share what they count."""
    files = (stack.home / "run" / FOLDER).glob("worker-*.lock")
    return {int(path.name.split("-")[1]) for path in files}


def call(stack: Stack, number: int) -> None:
    answer = stack.tool(PLUGIN, "greet", {"name": str(number)})
    assert answer.error is None
    assert answer.items


def said(stack: Stack, name: str) -> list[float]:
    """What each of the two api processes answers."""
    found = []
    for pid in sorted(api_processes(stack)):
        with answering(stack, pid):
            found.append(stack.metric(name))
    return found


def test_calls_of_both_processes_and_an_install_are_counted_once(stack: Stack) -> None:
    for pid in api_processes(stack):
        with answering(stack, pid):
            for number in range(EACH):
                call(stack, number)
    calls = 2 * EACH
    wait_until(lambda: written(stack, "plugin_invocations") == calls)
    wait_until(lambda: written(stack, "plugin_installations") == 1)
    assert said(stack, "plugin_invocations_total") == [calls, calls]
    assert said(stack, "plugin_invocation_duration_seconds_count") == [calls, calls]
    assert said(stack, "plugin_installations_total") == [1, 1]
    assert said(stack, "plugin_installation_duration_seconds_count") == [1, 1]
    wait_until(lambda: said(stack, "plugin_invocations_active") == [0, 0])
    assert stack.metric("tidegate_streams_opened_total") >= calls


def test_killed_processes_stay_counted_and_whoever_follows_adds_to_them(stack: Stack) -> None:
    before = written(stack, "plugin_invocations")
    old, worker = api_processes(stack), stack.pid("worker")
    for pid in (*old, worker):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(sharing(stack) - old) == 2)
    wait_until(lambda: worker_files(stack) and not worker_files(stack) & {worker})
    wait_until(lambda: stack.ask("GET", "/health/check")[0] == 200)
    assert said(stack, "plugin_invocations_total") == [before, before]
    assert said(stack, "plugin_installations_total") == [1, 1]
    call(stack, 0)
    wait_until(lambda: written(stack, "plugin_invocations") == before + 1)
    assert said(stack, "plugin_invocations_total") == [before + 1, before + 1]


def test_a_process_that_is_replaced_writes_its_last_second(stack: Stack) -> None:
    before, old = written(stack, "plugin_invocations"), api_processes(stack)
    call(stack, 0)
    os.kill(stack.pid("api"), signal.SIGHUP)
    wait_until(lambda: len(sharing(stack) - old) == 2 and not api_processes(stack) & old)
    assert said(stack, "plugin_invocations_total") == [before + 1, before + 1]


def test_a_restart_begins_at_zero(stack: Stack) -> None:
    """The last one: it takes the stack down."""
    assert stack.process is not None
    given = Path(f"/proc/{stack.process.pid}/environ").read_text().split("\0")
    environ = dict(pair.split("=", 1) for pair in given if "=" in pair)
    assert written(stack, "plugin_invocations") > 0
    assert stack.stop() == 0
    stack.start(environ)
    wait_until(lambda: len(sharing(stack)) == 2)
    for name in ("plugin_invocations_total", "plugin_installations_total"):
        assert said(stack, name) == [0, 0]
    call(stack, 0)
    wait_until(lambda: said(stack, "plugin_invocations_total") == [1, 1])
    assert stack.stop() == 0
