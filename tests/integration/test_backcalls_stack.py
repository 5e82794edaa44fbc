"""Back-calls through the whole product: re-entrant calls under saturation, the sample agent."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.databases import Backend
from tests.fake_dify import FakeDify, fake_dify
from tests.hosting import PLUGINS, package_of
from tests.integration.test_backcalls import script
from tests.patience import patience
from tests.stack import TENANT, Stack, running_stack

EXAMPLES = PLUGINS.parent.parent / "examples"
RUNS = 10


@pytest.fixture(scope="module")
def reentrant(tmp_path_factory, backend: Backend) -> Iterator[tuple[FakeDify, Stack, str]]:
    """A stack with as many connections as runs; its Dify answers tools by calling it again."""
    home = tmp_path_factory.mktemp("stack")
    with fake_dify() as dify, backend.fresh() as servers:
        script(dify)
        dify.keeps_alive = False
        variables = {"SERVER_WORKER_CONNECTIONS": str(RUNS), **dify.environ, **servers}
        with running_stack(home / "h", **variables) as stack:
            plugin = stack.install(package_of(PLUGINS / "backcaller", home))
            dify.on("invoke/tool", lambda exchange: reenter(stack, plugin, exchange))
            stack.tool(plugin, "ask", {"what": "two"})
            yield dify, stack, plugin


def reenter(stack: Stack, plugin: str, exchange: Any) -> None:
    """What Dify does for a tool of a plugin: it dispatches to the daemon while it is asked."""
    data = {"provider": "backcaller", "tool": "ask", "credentials": {}}
    what = exchange.body["tool_parameters"] or {"what": "two"}
    body = json.dumps({"user_id": "d", "data": {**data, "tool_parameters": what}})
    headers = {
        "X-Api-Key": stack.key,
        "X-Plugin-ID": plugin,
        "Content-Type": "application/json",
    }
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request("POST", f"/plugin/{TENANT}/dispatch/tool/invoke", body, headers)
        text = connection.getresponse().read()
    finally:
        connection.close()
    exchange.begin()
    for line in text.split(b"\n"):
        if line.startswith(b"data:"):
            envelope = json.loads(line.removeprefix(b"data:"))
            exchange.send(envelope["data"], "" if envelope["code"] == 0 else envelope["message"])
    exchange.finish()


def test_R23_a_call_that_comes_back_in_is_answered_within_a_second(reentrant):
    _, stack, plugin = reentrant
    started = time.monotonic()
    answer = stack.tool(plugin, "ask", {"what": "tool"})
    assert answer.error is None
    assert len(answer.items) == 2
    assert time.monotonic() - started < patience(1)


def test_R24_as_many_runs_at_once_as_there_are_connections_all_finish(reentrant):
    _, stack, plugin = reentrant
    parameters = {"what": "tool", "parameters": {"what": "tool"}}  # comes back in twice
    with gevent.Timeout(20):
        greenlets = [gevent.spawn(stack.tool, plugin, "ask", parameters) for _ in range(RUNS)]
        gevent.joinall(greenlets, raise_error=True)
    for greenlet in greenlets:
        assert greenlet.value.error is None
        assert len(greenlet.value.items) == 2


def test_the_sample_agent_answers_without_dify_and_with_credentials_of_the_operator(tmp_path):
    with running_stack(tmp_path / "h") as stack:
        for name in ("hello", "parrot", "scout"):
            stack.install(package_of(EXAMPLES / name, tmp_path))
        parrot = {"provider": "tidegate/parrot/parrot", "model": "parrot", "mode": "chat"}
        params = {"query": "Ada", "model": {**parrot, "completion_params": {"pause": 0}}}
        data = {
            "agent_strategy_provider": "scout",
            "agent_strategy": "scout",
            "agent_strategy_params": params,
        }
        answer = stack.call("tidegate/scout", "agent_strategy/invoke", data)
        assert answer.error is None
        text = "".join(answer.texts)
        assert text.count("Hello, Ada! Nice to meet you.") == 2
        assert "Tides come and go" in text
        place = ("--provider", "tidegate/parrot/parrot", "--tenant", TENANT)
        said = _credential(stack.home, "set", *place, "word=canary")
        assert "canary" not in said
        assert "word" in _credential(stack.home, "list", "--tenant", TENANT)
        answer = stack.call("tidegate/scout", "agent_strategy/invoke", data)
        assert answer.error is None
        assert "forgotten" in _credential(stack.home, "remove", *place)


def _credential(home: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("tidegate")), "credential", *arguments]
    done = subprocess.run(
        command,
        env={"TIDEGATE_HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
