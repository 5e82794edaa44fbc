"""How many instances run, who gets a session, and who is told to come again."""

from __future__ import annotations

import time

import gevent
import pytest

from tests.faults.acting import install, until
from tests.hosting import Running, running_host
from tests.runtime.processes import gone

pytestmark = pytest.mark.limit(90, "plugins are started, scaled and stopped")


def pids(running: Running, identifier: str) -> set[int]:
    return {one.pid for one in running.host.supervisor(identifier).pool}


def test_two_instances_share_the_sessions_and_the_fewest_come_first(tmp_path):
    with running_host(tmp_path, TIDEGATE_INSTANCES_MIN=2, TIDEGATE_INSTANCES_MAX=2) as running:
        identifier = install(running, tmp_path)
        until(lambda: len(pids(running, identifier)) == 2)
        calls = [running.call(identifier, "hang", seconds=5).first() for _ in range(6)]
        loads = [one.load for one in running.host.supervisor(identifier).pool]
        assert loads == [3, 3]
        for call in calls[::2]:  # all in one instance
            call.call.cancel()
        until(lambda: sum(one.load for one in running.host.supervisor(identifier).pool) == 3)
        more = [running.call(identifier, "hang", seconds=5).first() for _ in range(3)]
        assert [one.load for one in running.host.supervisor(identifier).pool] == [3, 3]
        for call in [*calls[1::2], *more]:
            call.call.cancel()


def test_an_instance_is_added_while_all_are_busy_and_taken_away_when_idle(tmp_path):
    with running_host(
        tmp_path, TIDEGATE_INSTANCES_MAX=2, TIDEGATE_SCALE_WAIT=0.5, TIDEGATE_SCALE_IDLE=2
    ) as running:
        began = time.monotonic()
        identifier = install(running, tmp_path)
        started = time.monotonic() - began
        (first,) = pids(running, identifier)
        held = running.call(identifier, "hang", seconds=60).first()
        # on a busy machine a second one takes long to start, and is to find the first one busy
        busy = running.call(identifier, "burn", long=3 + 3 * started).first()
        until(lambda: len(pids(running, identifier)) == 2)
        (second,) = pids(running, identifier) - {first}
        assert running.call(identifier, "pid").wait().texts == [str(second)]
        assert not busy.ended.is_set()
        held.call.cancel()
        assert busy.wait(30 + 3 * started).error is None
        until(lambda: pids(running, identifier) == {first})
        assert gone([second], 10)


def test_an_instance_is_added_while_calls_wait_for_a_session(tmp_path):
    with running_host(
        tmp_path,
        TIDEGATE_INSTANCES_MAX=2,
        TIDEGATE_INSTANCE_SESSIONS=1,
        TIDEGATE_SCALE_WAIT=0.2,
        TIDEGATE_ADMISSION_WAIT=20,
    ) as running:
        identifier = install(running, tmp_path)
        held = running.call(identifier, "hang", seconds=20).first()
        assert running.call(identifier, "echo", text="served").wait().texts == ["served"]
        assert len(pids(running, identifier)) == 2
        held.call.cancel()


def test_a_dead_instance_costs_its_own_calls_and_the_other_serves_on(tmp_path):
    with running_host(tmp_path, TIDEGATE_INSTANCES_MIN=2, TIDEGATE_INSTANCES_MAX=2) as running:
        identifier = install(running, tmp_path)
        until(lambda: len(pids(running, identifier)) == 2)
        dying = running.call(identifier, "die")
        beside = running.call(identifier, "stream", count=100, pause=0.01)
        assert dying.wait().error_type == "PluginDied"
        assert running.call(identifier, "echo", text="served").wait(5).texts == ["served"]
        assert beside.wait().error is None
        until(lambda: len(pids(running, identifier)) == 2)


def test_an_idle_plugin_is_stopped_and_its_next_call_waits_for_the_start(tmp_path):
    with running_host(tmp_path, TIDEGATE_IDLE_STOP=1) as running:
        identifier = install(running, tmp_path)
        (pid,) = pids(running, identifier)
        running.call(identifier, "stream", count=25, pause=0.1).wait()
        assert pids(running, identifier) == {pid}, "a session is not idleness"
        until(lambda: not pids(running, identifier))
        assert gone([pid], 10)
        assert running.control("status").chunks[0]["phase"] == "idle"
        assert running.control("status").chunks[0]["deaths"] == 0
        assert running.call(identifier, "echo", text="up again").wait().texts == ["up again"]


def test_a_pinned_plugin_is_not_stopped(tmp_path):
    with running_host(
        tmp_path, TIDEGATE_IDLE_STOP=0.5, TIDEGATE_PINNED="tidegate/misbehave"
    ) as running:
        identifier = install(running, tmp_path)
        other = install(running, tmp_path, own_name=True)
        until(lambda: not pids(running, other))
        assert pids(running, identifier)


def test_T_B5_over_the_cap_of_a_plugin_calls_wait_and_are_then_refused(tmp_path):
    with running_host(tmp_path, TIDEGATE_PLUGIN_SESSIONS=2, TIDEGATE_ADMISSION_WAIT=1.5) as running:
        identifier = install(running, tmp_path)
        held = [running.call(identifier, "hang", seconds=20).first() for _ in range(2)]
        waits = running.call(identifier, "echo", text="waited")
        gevent.sleep(0.3)
        assert not waits.ended.is_set()
        held[0].call.cancel()
        assert waits.wait(10).texts == ["waited"]
        held.append(running.call(identifier, "hang", seconds=20).first())
        refused = running.call(identifier, "echo", text="no").wait(10)
        assert refused.error_type == "Overloaded"
        assert refused.error["args"]["retry_after"] >= 1
        for call in held[1:]:
            call.call.cancel()
        assert running.call(identifier, "echo", text="room").wait(10).texts == ["room"]


def test_T_B5_a_tenant_at_its_cap_delays_nobody_else(tmp_path):
    with running_host(tmp_path, TIDEGATE_TENANT_SESSIONS=3, TIDEGATE_ADMISSION_WAIT=30) as running:
        identifier = install(running, tmp_path)
        other = install(running, tmp_path, own_name=True)
        held = [
            running.call(name, "hang", seconds=20, tenant="greedy").first()
            for name in (identifier, identifier, other)
        ]
        waits = [
            running.call(name, "echo", text=name, tenant="greedy") for name in (identifier, other)
        ]
        modest = [running.call(identifier, "echo", text="m", tenant="modest") for _ in range(20)]
        for call in modest:
            assert call.wait(20).error is None
        assert not any(call.ended.is_set() for call in waits)
        held[2].call.cancel()  # of the other plugin: the slot is the tenant's, not the plugin's
        for call in waits:
            assert call.wait(20).error is None
        for call in held[:2]:
            call.call.cancel()
