"""Agents under load: every run closes, promptly, and nothing of it is left (users.md T16, R24).

Once through the whole product with a Dify that answers the back-calls, once through the host alone
where Tidegate answers them itself; both on each backend.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.lock import BoundedSemaphore

from tests.backcall_world import World, back_call_world, results
from tests.databases import Backend
from tests.fake_dify import fake_dify
from tests.hosting import PLUGINS, package_of
from tests.integration.test_backcalls import script
from tests.patience import patience, wait_until
from tests.stack import Answer, Stack, running_stack

SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
RUNS = 1000 if SOAK else 60
AT_ONCE = 50
CLOSING = 0.2
TEXTS = 2 * 2  # two model calls of two words
MESSAGES = 3 * 2  # three tool calls of two messages

pytestmark = [
    pytest.mark.stretched,
    pytest.mark.limit(900 if SOAK else 90, "sixty agent runs; a thousand in the soak"),
    pytest.mark.blocks_hub("packages are built in the test's process"),
]


def run_many[T](run: Callable[[], T]) -> list[T]:
    """RUNS agent runs, AT_ONCE at a time."""
    turns = BoundedSemaphore(AT_ONCE)

    def one() -> T:
        with turns:
            return run()

    greenlets = [gevent.spawn(one) for _ in range(RUNS)]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def check_whole(found: list[Any]) -> None:
    """All that the agent asked for has come back, and from it to us."""
    assert sum("text" in one for one in found) == TEXTS
    assert sum("type" in one for one in found) == MESSAGES


def check_closing(closing: list[float]) -> None:
    """Seconds from the last event of each run to its end."""
    late = sorted(closing)
    p50, p99, worst = late[RUNS // 2], late[int(RUNS * 0.99)], late[-1]
    said = f"p50 {p50:.4f} s, p99 {p99:.4f} s, worst {worst:.4f} s"
    print(f"{RUNS} runs closed after their last event: {said}")
    assert worst <= CLOSING, said


# --------------------------------------------------------------------------- through the product


def agent_run(stack: Stack) -> tuple[Answer, float]:
    """One run over HTTP; how long after its last event the stream was over."""
    last = 0.0

    def note(item: Any) -> None:
        nonlocal last
        last = time.monotonic()

    data = {
        "agent_strategy_provider": "backagent",
        "agent_strategy": "ask",
        "agent_strategy_params": {"what": "agent"},
    }
    answer = stack.call("tidegate/backagent", "agent_strategy/invoke", data, on_item=note)
    return answer, time.monotonic() - last


def sessions(stack: Stack) -> float:
    """How many sessions the host has open."""
    _, text = stack.ask("GET", "/metrics/")
    line = next(one for one in text.decode().splitlines() if 'figure="sessions"' in one)
    return float(line.rpartition(" ")[2])


def test_T16_every_agent_run_closes_at_once_and_leaves_nothing(
    backend: Backend, tmp_path: Path
) -> None:
    with fake_dify() as dify, backend.fresh() as servers:
        script(dify)
        with running_stack(tmp_path / "h", **dify.environ, **servers) as stack:
            asking = (PLUGINS / "backcaller" / "asking.py").read_text(encoding="utf-8")
            stack.install(package_of(PLUGINS / "backagent", tmp_path, files={"asking.py": asking}))
            agent_run(stack)
            dify.calls.clear()
            runs = run_many(lambda: agent_run(stack))
            assert [answer.error for answer, _ in runs] == [None] * RUNS
            for answer, _ in runs:
                kept = [one for one in answer.items if one["type"] == "json"]
                check_whole([one["message"]["json_object"] for one in kept])
            check_closing([closing for _, closing in runs])
            assert len(dify.calls) == RUNS * 5
            wait_until(lambda: sessions(stack) == 0, patience(1))


# --------------------------------------------------------------------------- answered here


def run_in(world: World, agent: str, given: dict[str, Any]) -> tuple[list[Any], float]:
    """One run on the link; what came, and how long after that its end came."""
    answer = world.start_agent(agent, "agent", given).wait(60)
    assert answer.error is None, answer.error
    return results(answer), answer.closing  # type: ignore[attr-defined]


def test_T16_the_same_where_tidegate_answers_by_itself(backend: Backend, tmp_path: Path) -> None:
    twice = {
        "prompt": "hi",
        "model": "short",
        "tool_provider": "tidegate/backcaller/backcaller",
        "tool": "ask",
        "parameters": {"what": "two"},
    }
    environ = {"TIDEGATE_BACKCALLS": "self"}
    with (
        backend.fresh(ends=False) as servers,
        back_call_world(tmp_path / "h", **environ, **servers) as world,
    ):
        world.add(PLUGINS / "zoo")
        world.add(PLUGINS / "backcaller")
        agent = world.add_agent()
        runs = run_many(lambda: run_in(world, agent, twice))
        for found, _ in runs:
            check_whole(found)
        check_closing([closing for _, closing in runs])
        assert world.wait_idle(1), "orphan sessions or back-calls"
