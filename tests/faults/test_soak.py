"""Half an hour of everything at once: memory, descriptors, greenlets and processes stay flat.

``make soak`` runs both: half a minute, and the full length (T-R6). The length of the long
run is ``TIDEGATE_TEST_SOAK_MINUTES``, 30 by default.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fake_dify import FakeDify, fake_dify
from tests.faults.load import MixedLoad
from tests.faults.sampling import Sampler, settle
from tests.integration.test_backcalls import script
from tests.stack import ROLES, running_stack

MINUTES = float(os.environ.get("TIDEGATE_TEST_SOAK_MINUTES", "30"))
#: Seconds of a round: load, rest and sample.
EVERY = 30
#: What a heap of Python breathes from one look to the next, however long one waits.
BREATH = 1 << 20
pytestmark = pytest.mark.blocks_hub("starts processes, builds packages, reads thousands of streams")


@pytest.mark.soak
@pytest.mark.limit(60 * MINUTES + 600, "the long run itself")
def test_T_R6_half_an_hour_of_everything_leaves_all_roles_flat(tmp_path):
    rounds = max(8, int(60 * MINUTES / EVERY))
    sampler = soak(tmp_path, rounds=rounds, seconds=EVERY - 6)
    # The first half is the warm-up: glibc's heap in the host takes a quarter of an hour to meet the
    # worst mixture of buffers at once, and keeps that size then. A leak grows on in the second.
    assert grown(sampler, warm=rounds // 2, share=0.02) == []


@pytest.mark.soak
@pytest.mark.limit(180, "the same in short")
def test_T_R6_half_a_minute_of_everything_leaves_all_roles_flat(tmp_path):
    """So short, a heap still grows into its size: only a leak per call is seen in the memory."""
    sampler = soak(tmp_path, rounds=6, seconds=3)
    assert grown(sampler, warm=2, share=0.10) == []


def soak(home: Path, *, rounds: int, seconds: float) -> Sampler:
    """Rounds of load and rest on a fresh stack, a sample in each rest."""
    sampler = Sampler(home)
    with fake_dify() as dify:
        script(dify)
        dify.on("invoke/encrypt", lambda exchange: {"data": exchange.body["data"]})
        dify.keeps_alive = False
        with running_stack(home / "home", **dify.environ, **sampler.environ) as stack:
            load = MixedLoad(stack, home)
            pids = {role: stack.pid(role) for role in ROLES}
            for _ in range(rounds):
                one_round(load, dify, seconds)
                sampler.take(stack)
            assert {role: stack.pid(role) for role in ROLES} == pids
            assert stack.metric("plugin_invocations_active") == 0
            assert set(load.done) == {
                "call", "stream", "leave", "noise", "back_call", "crash", "come_and_go", "webhook",
            }  # fmt: skip
    print(f"\n{sampler.table()}\n{dict(load.done)}")
    return sampler


def one_round(load: MixedLoad, dify: FakeDify, seconds: float) -> None:
    """Load, then a rest that is long enough for retirements to end."""
    load.run(seconds)
    load.rest()
    settle(min(5.0, max(1.5, seconds / 6)))
    dify.calls.clear()


def grown(sampler: Sampler, *, warm: int, share: float) -> list[str]:
    """Who grew, by how much: by the line through all samples after the warm-up."""
    found = []
    for role in (*ROLES, "all"):
        for what, slack in (("memory", BREATH), ("descriptors", 2), ("greenlets", 2)):
            more, mean = sampler.growth(role, what, warm)
            if more > max(share * mean, slack):
                found.append(f"{role}: {what} grew by {more:.0f} from about {mean:.0f}")
    more, mean = sampler.growth("all", "processes", warm)
    if abs(more) > 1:
        found.append(f"processes went from about {mean:.0f} by {more:.1f}")
    return found
