"""Agents under load: every run closes, promptly, and nothing of it is left (users.md T16, R24)."""

from __future__ import annotations

import os
from typing import Any

import gevent
import pytest
from gevent.lock import BoundedSemaphore

from tests.backcall_world import TimedAnswer, World, back_call_world, results
from tests.fake_dify import fake_dify
from tests.hosting import PLUGINS
from tests.integration.test_backcalls import script

SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
RUNS = 1000 if SOAK else 100
AT_ONCE = 50
CLOSING = 0.2
AGENT: dict[str, Any] = {
    "llm_chunks": 2 * 2,  # two model calls of two words
    "tools": 3 * 2,  # three tool calls of two messages
}


def run_many(world: World, agent: str, given: dict[str, Any]) -> list[TimedAnswer]:
    """RUNS agent runs, AT_ONCE at a time."""
    turns = BoundedSemaphore(AT_ONCE)
    answers: list[TimedAnswer] = []

    def run() -> None:
        with turns:
            answer = world.start_agent(agent, "agent", given)
            answers.append(answer)
            answer.wait(60)

    greenlets = [gevent.spawn(run) for _ in range(RUNS)]
    gevent.joinall(greenlets, raise_error=True)
    return answers


def check(world: World, answers: list[TimedAnswer]) -> None:
    """Every run is whole, closed in time, and nothing is left of it."""
    assert [answer.error for answer in answers] == [None] * RUNS
    for answer in answers:
        found = results(answer)
        assert sum("text" in one for one in found) == AGENT["llm_chunks"]
        assert sum("type" in one for one in found) == AGENT["tools"]
    late = sorted(answer.closing for answer in answers)
    assert late[-1] <= CLOSING, f"p99 {late[int(RUNS * 0.99)]:.3f} s, worst {late[-1]:.3f} s"
    assert world.wait_idle(1), "orphan sessions or back-calls"


@pytest.mark.stretched
@pytest.mark.limit(600 if SOAK else 60, "a hundred agent runs; a thousand in the soak")
def test_T16_every_agent_run_closes_at_once_and_leaves_nothing(tmp_path):
    with fake_dify() as dify:
        script(dify)
        with back_call_world(tmp_path / "h", **dify.environ) as world:
            agent = world.add_agent()
            check(world, run_many(world, agent, {}))
            assert len(dify.calls) == RUNS * 5


@pytest.mark.stretched
@pytest.mark.limit(600 if SOAK else 60, "a hundred agent runs; a thousand in the soak")
def test_T16_the_same_where_tidegate_answers_by_itself(tmp_path):
    with back_call_world(tmp_path / "h", TIDEGATE_BACKCALLS="self") as world:
        world.add(PLUGINS / "zoo")
        world.add(PLUGINS / "backcaller")
        agent = world.add_agent()
        twice = {
            "prompt": "hi",
            "model": "short",
            "tool_provider": "tidegate/backcaller/backcaller",
            "tool": "ask",
            "parameters": {"what": "two"},
        }
        check(world, run_many(world, agent, twice))
