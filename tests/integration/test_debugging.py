"""Debugging with the real SDK in its remote mode, the whole way through the link."""

from __future__ import annotations

import signal
import time

import gevent
import pytest

from tests.debugging import TENANT, DebugWorld, debugging_host
from tests.patience import patience

PLUGIN = "tidegate/misbehave"


@pytest.fixture
def world(tmp_path):
    with debugging_host(tmp_path) as made:
        yield made


def act(world: DebugWorld, identifier: str, deed: str, **given: object):
    return world.call(identifier, deed, tenant=TENANT, **given)


@pytest.mark.limit(120, "starts plugins with the real SDK, twice")
def test_T36_a_debugged_plugin_is_callable_and_gone_when_its_process_is(world):
    with world.sdk() as process:
        identifier = world.connected(PLUGIN)
        answer = act(world, identifier, "stream", count=50).wait()
        assert answer.texts == [f"{number} " for number in range(50)]
        hanging = act(world, identifier, "hang").first()
        row = world.installation(PLUGIN)
        assert (row.runtime_type, row.source, row.meta) == ("remote", "remote", {})
        assert world.declaration(identifier)["tool"]["tools"]
        process.child.kill()
        began = time.monotonic()
        assert hanging.wait().error == {
            "error_type": "ConnectionClosedError",
            "message": "Connection closed unexpectedly",
            "args": {"plugin": identifier},
        }
        world.until(lambda: world.installation(PLUGIN) is None)
        assert time.monotonic() - began < patience(1)
    with world.sdk():
        again = world.connected(PLUGIN)
        assert act(world, again, "echo", text="new").wait().texts == ["new"]


@pytest.mark.limit(120, "starts a plugin with the real SDK")
def test_T36_a_debugger_that_stops_the_process_loses_neither_connection_nor_registration(world):
    with world.sdk() as process:
        identifier = world.connected(PLUGIN)
        instance = world.debugging.directory.find(identifier)
        process.child.signal(signal.SIGSTOP)
        late = act(world, identifier, "echo", text="late", seconds=1).wait()
        assert late.error_type == "DeadlineExceeded"
        waiting = act(world, identifier, "echo", text="patient")
        process.child.signal(signal.SIGCONT)
        assert waiting.wait().texts == ["patient"]
        assert world.debugging.directory.find(identifier) is instance
        assert instance.table.counters.late > 0


@pytest.mark.soak
@pytest.mark.limit(720, "stands at a breakpoint for ten minutes")
def test_T36_a_breakpoint_of_ten_minutes_ends_nothing_but_calls_whose_time_is_over(world):
    with world.sdk() as process:
        identifier = world.connected(PLUGIN)
        instance = world.debugging.directory.find(identifier)
        process.child.signal(signal.SIGSTOP)
        patient = act(world, identifier, "echo", text="patient", seconds=700)
        late = act(world, identifier, "echo", text="late", seconds=30)
        assert late.wait(40).error_type == "DeadlineExceeded"
        gevent.sleep(600)  # this is what is tested
        assert not patient.ended.is_set()
        process.child.signal(signal.SIGCONT)
        assert patient.wait().texts == ["patient"]
        assert world.debugging.directory.find(identifier) is instance
        assert world.connected(PLUGIN) == identifier


@pytest.mark.limit(120, "starts a plugin with the real SDK")
def test_a_wrong_key_gives_its_reason_to_the_terminal(world):
    with world.sdk(key="11111111-2222-3333-4444-555555555555") as process:
        world.until(lambda: b"handshake failed, invalid key" in process.output)
        assert b"reset by peer" not in process.output


@pytest.mark.limit(120, "starts a plugin with the real SDK")
def test_T36_a_stopped_process_that_is_sent_more_than_fits_costs_calls_and_not_the_connection(
    world,
):
    with world.sdk() as process:
        identifier = world.connected(PLUGIN)
        instance = world.debugging.directory.find(identifier)
        process.child.signal(signal.SIGSTOP)
        long = "x" * (1 << 20)
        late = [act(world, identifier, "echo", text=long, seconds=1) for _ in range(20)]
        assert {one.wait(10).error_type for one in late} == {"DeadlineExceeded"}
        assert instance.table.backlog <= 2 << 20  # the line that has begun goes out whole
        process.child.signal(signal.SIGCONT)
        assert act(world, identifier, "echo", text="back").wait().texts == ["back"]
        assert world.debugging.directory.find(identifier) is instance
