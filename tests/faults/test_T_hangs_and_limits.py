"""Plugins that hang, eat, breed or burn: the host notices, says why and serves on."""

from __future__ import annotations

import os
import signal

import gevent
import pytest

from tests.faults.acting import install, until
from tests.hosting import running_host
from tests.runtime.processes import gone, runs
from tidegate.hosts.processes import scan

pytestmark = pytest.mark.limit(90, "plugins are started and replaced")


def test_T_K2_a_stopped_process_with_calls_is_replaced_and_they_end_typed(tmp_path):
    with running_host(tmp_path, TIDEGATE_STOPPED_LIMIT=1) as running:
        identifier = install(running, tmp_path)
        other = install(running, tmp_path, own_name=True)
        beside = running.call(other, "stream", count=100, pause=0.02)
        old = running.instance(identifier).pid
        calls = [running.call(identifier, "stream", count=999, pause=0.01) for _ in range(5)]
        for call in calls:
            call.first()
        os.kill(old, signal.SIGSTOP)
        for call in calls:
            call.wait(8)
            assert call.error_type == "PluginDied"
            assert "stopped" in call.error["message"]
        assert gone([old])
        assert running.call(identifier, "pid").wait().texts != [str(old)]
        assert beside.wait().error is None
        assert running.control("figures").chunks[0]["hangs"] == 1


def test_T_K2_a_process_that_is_stopped_for_less_than_the_limit_goes_on(tmp_path):
    with running_host(tmp_path, TIDEGATE_STOPPED_LIMIT=30) as running:
        identifier = install(running, tmp_path)
        call = running.call(identifier, "stream", count=50, pause=0.02).first()
        pid = running.instance(identifier).pid
        os.kill(pid, signal.SIGSTOP)
        gevent.sleep(1.5)
        os.kill(pid, signal.SIGCONT)
        assert call.wait().error is None
        assert running.instance(identifier).pid == pid


def test_T_K2_a_silent_process_gets_no_new_calls_and_lives_to_the_end_of_its_own(tmp_path):
    with running_host(tmp_path, TIDEGATE_STALL_LIMIT=1) as running:
        identifier = install(running, tmp_path)
        old = running.instance(identifier).pid
        stuck = running.call(identifier, "deadlock", speak=False, seconds=9)
        gevent.sleep(1.5)
        assert running.call(identifier, "pid").wait(20).texts != [str(old)]
        until(lambda: running.control("figures").chunks[0]["hangs"] == 1)
        assert not stuck.ended.is_set()
        assert stuck.wait(15).error_type == "DeadlineExceeded"
        assert gone([old], 10)


def test_T_K9_D_36_a_plugin_over_its_memory_is_stopped_and_says_so(tmp_path):
    with running_host(
        tmp_path, TIDEGATE_PER_PLUGIN=f"tidegate/misbehave:PLUGIN_MEMORY={200 << 20}"
    ) as running:
        identifier = install(running, tmp_path)
        other = install(running, tmp_path, own_name=True)
        beside = running.call(other, "stream", count=100, pause=0.02)
        for given in ({}, {"child": True}):
            call = running.call(identifier, "eat", size=400 << 20, **given).wait(20)
            assert call.error_type == "PluginDied"
            assert call.error["args"]["oom"] is True
            assert call.error["args"]["limit"] == "plugin_oom"
            assert call.error["args"]["setting"] == "TIDEGATE_PLUGIN_MEMORY"
            assert "plugin_oom" in call.error["message"]
        assert running.call(identifier, "echo", text="back").wait().texts == ["back"]
        assert beside.wait().error is None
        assert running.control("figures").chunks[0]["ooms"] == 2


def test_T_K9_a_memory_error_of_the_plugin_itself_is_told_as_oom(tmp_path):
    with running_host(tmp_path) as running:
        identifier = install(running, tmp_path, "out_of_memory")
        call = running.call(identifier, "die").wait()
        assert call.error["args"]["oom"] is True


def test_a_plugin_with_too_many_processes_is_stopped_with_all_of_them(tmp_path):
    with running_host(tmp_path, TIDEGATE_PLUGIN_PROCESSES=20) as running:
        identifier = install(running, tmp_path)
        leader = running.instance(identifier).pid
        call = running.call(identifier, "breed", count=40).wait(20)
        assert call.error["args"]["limit"] == "plugin_limit"
        assert call.error["args"]["setting"] == "TIDEGATE_PLUGIN_PROCESSES"
        assert call.error["args"]["oom"] is False
        until(lambda: not [one for one in scan().values() if one.session == leader and one.alive])
        assert running.control("figures").chunks[0]["limited"] == 1


def test_T_K4_grandchildren_that_left_their_session_die_with_the_plugin(tmp_path):
    with running_host(tmp_path) as running:
        identifier = install(running, tmp_path)
        call = running.call(identifier, "escape", pause=1.5, die=True).first()
        pids = [int(pid) for pid in call.texts[0].split()]
        assert all(map(runs, pids))
        assert call.wait().error_type == "PluginDied"
        assert gone(pids)


def test_a_plugin_that_burns_for_calls_that_are_over_is_recycled(tmp_path):
    with running_host(tmp_path, TIDEGATE_BURN_LIMIT=1, TIDEGATE_STOP_GRACE=1) as running:
        identifier = install(running, tmp_path)
        old = running.instance(identifier).pid
        call = running.call(identifier, "burn", long=20).first()
        call.call.cancel()
        until(lambda: running.instance(identifier).pid != old)
        assert gone([old], 5)
        assert running.call(identifier, "echo", text="cool").wait().texts == ["cool"]


@pytest.mark.parametrize(
    "mark",
    [{"TIDEGATE_RECYCLE_AGE": 3}, {"TIDEGATE_RECYCLE_MEMORY": 1 << 20}],
    ids=["age", "memory"],
)
def test_an_instance_is_recycled_without_a_lost_call(tmp_path, mark):
    with running_host(tmp_path, **mark) as running:
        identifier = install(running, tmp_path)
        old = running.instance(identifier).pid
        running_call = running.call(identifier, "stream", count=200, pause=0.02).first()
        seen = set()

        def new_pid():
            answer = running.call(identifier, "pid").wait()
            assert answer.error is None
            seen.update(answer.texts)
            return len(seen) > 1

        until(new_pid)
        assert running_call.wait().error is None
        assert len(running_call.texts) == 200
        assert gone([old], 10)
