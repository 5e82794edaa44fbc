"""Serverless with the real SDK: connector, launch, calls, back-calls, ends."""

from __future__ import annotations

import time

import gevent
import pytest

from tests.hosting import PLUGINS, package_of
from tests.patience import patience
from tests.serverless import ServerlessWorld, serverless_world
from tidegate.storage import serverless_runtimes

MISBEHAVE = PLUGINS / "misbehave"


@pytest.fixture(autouse=True)
def quiet(world):
    """Kept connections are closed behind each test, or it would wait for them."""
    yield
    world.serverless._pool.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serverless")
    with serverless_world(folder) as made:
        made.identifier = made.install(package_of(MISBEHAVE, folder))
        assert made.tool(made.identifier, "echo").error is None  # what is opened once, is open now
        yield made


@pytest.mark.limit(120, "builds an environment at the first run")
def test_a_stream_of_a_function_arrives_complete_and_in_order(world: ServerlessWorld):
    call = world.tool(world.identifier, "stream", count=200)
    assert call.error is None
    assert call.texts == [f"{number} " for number in range(200)]


def test_twenty_calls_at_once_have_their_own_streams(world):
    calls = [gevent.spawn(world.tool, world.identifier, "stream", count=20) for _ in range(20)]
    gevent.joinall(calls, timeout=60)
    assert [one.get().texts for one in calls] == [[f"{n} " for n in range(20)]] * 20


def test_an_error_of_the_plugin_passes_with_its_own_type(world):
    call = world.tool(world.identifier, "fail")
    assert call.texts == ["before"]
    assert (call.error["error_type"], call.error["message"]) == ("ValueError", "boom")


def test_a_back_call_of_a_function_is_answered_over_http(world):
    call = world.tool(world.identifier, "store")
    assert call.error is None
    assert call.texts == ["stored"]


def test_the_row_says_where_the_function_is(world):
    with world.database.read() as conn:
        row = serverless_runtimes.find(conn, world.identifier)
    assert row.url == world.connector.function(world.identifier).url
    assert row.name == "misbehave-1"


def test_install_of_what_runs_already_launches_nothing(world):
    before = world.connector.asked.count("POST /v1/launch")
    assert world.control("install", identifier=world.identifier)
    assert world.connector.asked.count("POST /v1/launch") == before


def test_a_failed_launch_fails_the_installation_with_the_connectors_words(world, tmp_path):
    identifier = world.upload(package_of(MISBEHAVE, tmp_path, name="misbehave-unlucky"))
    world.connector.failing = "no room in the cloud"
    try:
        with pytest.raises(Exception, match="no room in the cloud"):
            world.control("install", identifier=identifier)
    finally:
        world.connector.failing = ""


def test_a_version_without_a_function_is_refused_in_words_that_dify_looks_for(world, tmp_path):
    identifier = world.upload(package_of(MISBEHAVE, tmp_path, name="misbehave-nowhere"))
    world.own(identifier)
    call = world.tool(identifier, "echo")
    assert "plugin runtime not found" in call.error["message"]


@pytest.mark.limit(120, "the function is started again")
@pytest.mark.leaks("the function is another process afterwards")
def test_a_function_that_dies_under_a_call_ends_it_typed_and_serves_again(world):
    function = world.connector.function(world.identifier)
    starts = function.starts
    began = time.monotonic()
    call = world.tool(world.identifier, "die")
    assert time.monotonic() - began < patience(5)
    assert call.error["error_type"] in ("PluginRuntimeError", "PluginDaemonInnerError")
    function.wait_ready()
    assert function.starts == starts + 1
    assert world.tool(world.identifier, "echo", text="again").texts == ["again"]


def test_status_shows_the_function(world):
    (status,) = world.control("status", identifier=world.identifier)
    assert (status["runtime"], status["function"]["name"]) == ("serverless", "misbehave-1")


def test_a_version_that_has_no_function_yet_gets_one_in_the_background(world, tmp_path):
    identifier = world.upload(package_of(MISBEHAVE, tmp_path, name="misbehave-older"))
    assert world.control("prepare", identifier=identifier)[-1] == {"built": True}
    world.own(identifier)
    assert world.tool(identifier, "echo", text="here").texts == ["here"]
    assert world.control("prepare", identifier=identifier) == [{"built": False}]
    world.connector.function(identifier).stop()


def test_metrics_count_functions_and_their_sessions(world):
    _, text, _ = world.ask("GET", "/metrics/")
    assert b'active_plugins_total{runtime_type="serverless"}' in text
    assert b'plugin_id="tidegate/misbehave",runtime_type="serverless"} 1' in text
    assert b"serverless_sessions" in text
