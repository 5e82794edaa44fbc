"""A host that is away for a moment: calls wait for it, together, and not for ever."""

from __future__ import annotations

import time

import gevent
import pytest

from tests.unit.link.test_link import KEY, Recorder, wait_for
from tidegate.calls import Calls
from tidegate.calls.keeper import Keeper
from tidegate.deadline import Deadline
from tidegate.link import LinkClient, LinkServer
from tidegate.runtime import home


@pytest.fixture
def path(tmp_path):
    return tmp_path / "host.sock"


@pytest.fixture
def link(path):
    link = LinkClient(path, key=KEY, on_notice=bytes)
    yield link
    link.close()


@pytest.fixture
def keeper(link):
    """Patient for longer than any test lasts."""
    yield from started(Keeper(link, patience=60))


@pytest.fixture
def hasty(link):
    """Gives the host up at the first failure."""
    yield from started(Keeper(link, patience=0))


def started(keeper):
    keeper.start()
    yield keeper
    keeper.stop()


def serve(path):
    server = LinkServer(Recorder(), key=KEY, path=path)
    server.start()
    return server


def test_all_who_wait_go_on_when_the_host_is_there(keeper, link, path):
    waiting = [gevent.spawn(keeper.wait, 60) for _ in range(100)]
    gevent.sleep(0.02)
    assert not any(one.ready() for one in waiting)
    server = serve(path)
    gevent.joinall(waiting, timeout=5)
    assert all(one.successful() for one in waiting)
    assert link.connected
    server.stop()


def test_a_host_that_went_and_came_back_is_waited_for_again(keeper, link, path):
    server = serve(path)
    keeper.wait(60)
    server.stop()
    wait_for(lambda: not link.connected)
    waiting = gevent.spawn(keeper.wait, 60)
    gevent.sleep(0.02)
    assert not waiting.ready()
    server = serve(path)
    waiting.join(5)
    assert link.connected
    server.stop()


def test_a_host_hears_what_is_left_of_the_deadline_after_the_wait(tmp_path):
    settings = home.prepare_home({"TIDEGATE_HOME": str(tmp_path)})
    calls = Calls(settings)
    calls.start()
    opening = gevent.spawn(calls.control, "status", {}, Deadline.after(60, "test"))
    gevent.sleep(0.2)
    host = Recorder()
    server = LinkServer(host, key=home.link_key(settings), path=home.link_socket(settings))
    server.start()
    stream = opening.get(timeout=5)
    assert host.arrived.wait(5)
    assert host.calls[0].head.seconds <= 59.8
    stream.close()
    calls.stop()
    server.stop()


def test_no_call_waits_longer_than_it_may_live(keeper):
    began = time.monotonic()
    keeper.wait(0.05)
    assert 0.05 <= time.monotonic() - began < 5


def test_a_host_that_is_not_expected_is_not_waited_for_until_it_was_seen(hasty, link, path):
    wait_for(lambda: not hasty._expected())
    hasty.wait(60)  # at once, or the test's own limit strikes
    server = serve(path)
    wait_for(lambda: link.connected)
    server.stop()


def test_who_waits_when_the_process_stops_goes_on(keeper):
    waiting = gevent.spawn(keeper.wait, 60)
    gevent.sleep(0.02)
    assert not waiting.ready()
    keeper.stop()
    waiting.join(5)
    assert waiting.successful()


def test_without_its_greenlet_nothing_waits(link):
    Keeper(link).wait(60)
