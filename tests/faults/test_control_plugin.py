"""A control plugin beside the pack of bad actors: no call of it fails, and none is slower.

users.md, test 1. Its p99 is taken in turns, with and without the pack, on machines with two cores
and other work. Such noise only makes a turn worse, so in CI the bar holds for the best of a few
turns, and 20 ms are forgiven; the soak asks it of the median of many, and forgives nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest

from tests.faults.pack import CONTROL, Played, at_work
from tests.stack import Stack, running_stack
from tidegate.cli.client import Client
from tidegate.cli.faults.actors import ACTORS
from tidegate.cli.faults.calling import CUT, HUNG, OK, Server
from tidegate.cli.faults.command import _bring
from tidegate.cli.show import Progress
from tidegate.cli.target import DEFAULT_TENANT, Target
from tidegate.settings import Secret

WORSE = 1.10
FORGIVEN = 0.02
PAUSE = 0.01
#: These take whole cores by themselves: with two for everybody, that is what one would measure.
BURNING = {"burn", "stdout-flood", "endless-line", "long-line", "stderr-flood", "slow-consumer"}
#: Takes longest, and nobody's CPU.
LONGEST = "slow-head"
ALL = [LONGEST, *(one.name for one in ACTORS if one.name != LONGEST)]
QUIET = [name for name in ALL if name not in BURNING]

type Calls = list[tuple[float, float]]
"""When each began, and the seconds it took."""

pytestmark = pytest.mark.blocks_hub("starts processes, builds packages")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Server]]:
    with running_stack(tmp_path_factory.mktemp("control") / "home") as stack:
        target = Target(f"http://127.0.0.1:{stack.port}", Secret(stack.key), DEFAULT_TENANT)
        for name in ("badactor", "bystander"):
            _bring(Client(target), name, None, Progress())
        yield stack, Server(target, 30.0)


def pack(stack: Stack, actors: list[str], at_once: int, *, once: bool = False):
    return at_work(f"http://127.0.0.1:{stack.port}", stack.key, actors, at_once=at_once, once=once)


def control(server: Server, calls: int) -> Calls:
    """So many calls to the control plugin, one after the other; the test fails when one does."""
    made = []
    for _ in range(calls):
        began = time.monotonic()
        outcome = server.call(CONTROL, "pid", {})
        assert outcome.end == OK, outcome
        made.append((began, outcome.took))
        time.sleep(PAUSE)
    return made


@pytest.mark.limit(240, "each actor takes its time")
def test_users_1_the_whole_pack_costs_the_control_plugin_no_call_and_no_time(place):
    """Every actor once, four at a time; calls beside those that burn the CPU have to be served,
    and are not in the p99.
    """
    stack, server = place
    host = stack.pid("host")
    calm = control(server, 100)
    with pack(stack, ALL, 4, once=True) as played:
        beside: Calls = []
        while not played.over:
            beside += control(server, 5)
    calm += control(server, 100)
    assert sorted(one.name for one in played.acts) == sorted(ALL), "every actor had its turn"
    assert [one for one in played.acts if one.end in (CUT, HUNG)] == []
    assert stack.pid("host") == host
    assert stack.metric("plugin_invocations_active") == 0
    quiet = [one for one in beside if not burns(played, *one)]
    assert len(quiet) > 100
    seen = [(p99(quiet), p99(calm))]
    while not no_worse(*seen[-1]):
        assert len(seen) < 5, f"p99 beside the pack, and without it: {seen}"
        seen.append(turn(*place, calls=200))


def burns(played: Played, began: float, took: float) -> bool:
    """Whether an actor that takes the CPU was at work during a call."""
    return any(
        one.name in BURNING and one.began < began + took and began < one.ended
        for one in played.acts
    )


def no_worse(beside: float, calm: float) -> bool:
    return beside <= WORSE * calm + FORGIVEN


@pytest.mark.soak
@pytest.mark.limit(240, "each actor takes its time")
def test_users_1_every_actor_of_the_pack_again_and_again_costs_it_no_call(place):
    stack, server = place
    host = stack.pid("host")
    ends_at = time.monotonic() + 90
    with pack(stack, ALL, 4) as played:
        made: Calls = []
        while time.monotonic() < ends_at:
            made += control(server, 20)
    assert {one.name for one in played.acts} == set(ALL), "every actor had its turn"
    assert [one for one in played.acts if one.end in (CUT, HUNG)] == []
    assert max(took for _, took in made) < 2
    assert stack.pid("host") == host
    assert stack.metric("plugin_invocations_active") == 0


@pytest.mark.soak
@pytest.mark.limit(900, "turns with and without the pack, many calls each")
def test_users_1_its_p99_is_no_worse_over_many_turns(place):
    ratios = [beside / calm for beside, calm in (turn(*place, calls=1000) for _ in range(9))]
    assert statistics.median(ratios) <= WORSE, ratios


def turn(stack: Stack, server: Server, *, calls: int) -> tuple[float, float]:
    """p99 beside the pack, and without it: that is before and after, so that drift cancels."""
    before = control(server, calls // 2)
    with pack(stack, QUIET, 1):
        beside = control(server, calls)
    return p99(beside), p99(before + control(server, calls // 2))


def p99(calls: Calls) -> float:
    return statistics.quantiles([took for _, took in calls], n=100)[98]
