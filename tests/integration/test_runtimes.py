"""One contract, three runtimes: the same plugin as a process, at its developer's, as a function.

The real SDK runs in each of its modes; the tests speak over the link and cannot tell which it is.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.debugging import DebugWorld, SdkProcess, debugging_host
from tests.hosting import PLUGINS, Answer, Running, package_of, running_host
from tests.patience import patience
from tests.serverless import TENANT, ServerlessWorld, serverless_world
from tidegate.backcalls import open_target
from tidegate.backcalls.plugin_storage import PluginStorage
from tidegate.link import LinkClient
from tidegate.runtime import home
from tidegate.storage import Database, migrate
from tidegate.storage.blobs import open_blobs

MISBEHAVE = PLUGINS / "misbehave"
MOST = 52
LIMITS = {
    "PLUGIN_RUNTIME_MAX_BUFFER_SIZE": 8 << 20,
    "TIDEGATE_PLUGIN_SESSIONS": MOST,
    "TIDEGATE_ADMISSION_WAIT": 3,
}
DEATHS = {
    "local": {"PluginDied"},
    "debugging": {"ConnectionClosedError"},
    "serverless": {"PluginRuntimeError", "PluginDaemonInnerError"},
}


class Bench:
    """A plugin that runs somewhere, and a peer that calls it over the link."""

    call_plugin = Running.call
    control = Running.control

    def __init__(self, runtime: str, client: LinkClient, identifier: str) -> None:
        self.runtime = runtime
        self.client = client
        self.identifier = identifier

    def call(self, deed: str, **given: Any) -> Answer:
        """Open a session."""
        return self.call_plugin(self.identifier, deed, tenant=TENANT, **given)

    def act(self, deed: str, **given: Any) -> Answer:
        """A session, to its end."""
        return self.call(deed, **given).wait()

    def sessions(self) -> int:
        """Sessions that are open in the plugin."""
        (status,) = self.control("status", identifier=self.identifier).chunks
        found = status["instances"] or [status]
        return sum(one["sessions"] for one in found)

    def waiting(self) -> int:
        """Calls that wait for a session."""
        (status,) = self.control("status", identifier=self.identifier).chunks
        return int(status["waiting"])

    def until_sessions(self, count: int, seconds: float = 5.0) -> None:
        """Until so many are open."""
        end = time.monotonic() + seconds
        while self.sessions() != count:
            assert time.monotonic() < end, f"{self.sessions()} sessions are open, not {count}"

    def revive(self) -> None:
        """Have the plugin back after its death, where that is somebody else's work."""

    def settle(self) -> None:
        """Give back what is kept for the next call: a test would wait for it."""


class _Debugged(Bench):
    def __init__(self, world: DebugWorld, process: SdkProcess) -> None:
        self.world = world
        self.process = process
        super().__init__("debugging", world.client, world.connected("tidegate/misbehave"))

    def revive(self) -> None:
        self.process.close()
        self.world.until(lambda: self.world.debugging.directory.find(self.identifier) is None)
        self.process = SdkProcess(
            self.process.python, self.process.folder, self.world.debugging.port, self.world.key()
        )
        self.world.until(lambda: self.world.debugging.directory.find(self.identifier))


class _Function(Bench):
    def __init__(self, world: ServerlessWorld, client: LinkClient, identifier: str) -> None:
        self.world = world
        super().__init__("serverless", client, identifier)

    def settle(self) -> None:
        self.world.serverless._pool.close()


@contextmanager
def _local(folder: Path) -> Iterator[Bench]:
    with running_host(folder, **LIMITS) as running:
        settings = running.settings
        migrate(settings)
        database = Database(settings)
        storage = PluginStorage(settings, database, open_blobs(settings))
        running.host.target = open_target(settings, storage=storage)
        identifier = running.shelf.add(package_of(MISBEHAVE, folder))
        assert running.control("install", identifier=identifier).error is None
        yield Bench("local", running.client, identifier)
    database.dispose()


@contextmanager
def _debugging(folder: Path) -> Iterator[Bench]:
    with debugging_host(folder, **LIMITS) as world, world.sdk() as process:
        bench = _Debugged(world, process)
        yield bench
        if bench.process is not process:
            bench.process.close()


@contextmanager
def _serverless(folder: Path) -> Iterator[Bench]:
    with serverless_world(folder, **LIMITS) as world:
        identifier = world.install(package_of(MISBEHAVE, folder))
        settings = world.settings
        client = LinkClient(
            home.link_socket(settings), key=home.link_key(settings), on_notice=lambda body: None
        )
        try:
            yield _Function(world, client, identifier)
        finally:
            client.close()


RUNTIMES = {"local": _local, "debugging": _debugging, "serverless": _serverless}


@pytest.fixture(scope="module", params=RUNTIMES)
def bench(request, tmp_path_factory):
    with RUNTIMES[request.param](tmp_path_factory.mktemp(request.param)) as made:
        for _ in range(2):
            assert made.act("store").error is None  # what is opened once, is open now
            made.act("written", line="opens the log")
        assert made.sessions() == 0
        yield made


@pytest.fixture(autouse=True)
def settled(bench: Bench):
    yield
    bench.settle()


@pytest.fixture
def bystander(bench: Bench):
    """Another session of the same plugin, which must come whole whatever the test does."""
    answer = bench.call("stream", count=40, pause=0.01)
    answer.first()
    yield answer
    assert answer.wait().error is None
    assert answer.texts == [f"{number} " for number in range(40)]


pytestmark = pytest.mark.limit(120, "starts plugins with the real SDK")


# --------------------------------------------------------------------------- streams


def test_a_stream_arrives_complete_and_in_order(bench):
    answer = bench.act("stream", count=400)
    assert answer.error is None
    assert answer.texts == [f"{number} " for number in range(400)]


def test_fifty_streams_at_once_arrive_complete_and_in_order(bench):
    answers = [bench.call("stream", count=40) for _ in range(50)]
    for answer in answers:
        assert answer.wait(60).error is None
        assert answer.texts == [f"{number} " for number in range(40)]


def test_chunks_arrive_while_the_plugin_still_works(bench):
    answer = bench.call("stream", count=40, pause=0.05)
    answer.first()
    assert not answer.ended.is_set()
    assert answer.wait().error is None


def test_an_answer_without_a_chunk_is_a_normal_end(bench):
    answer = bench.act("stream", count=0)
    assert (answer.error, answer.bodies) == (None, [])


# --------------------------------------------------------------------------- errors


def test_an_error_of_the_plugin_passes_with_its_own_type(bench, bystander):
    answer = bench.act("fail")
    assert answer.texts == ["before"]
    assert (answer.error_type, answer.error["message"]) == ("ValueError", "boom")
    assert "act.py" in answer.error["args"]["traceback"]


def test_a_session_id_that_is_in_use_is_refused(bench):
    session = str(uuid.uuid4())
    one = bench.call("stream", session=session, count=20, pause=0.02)
    assert bench.act("echo", session=session).error_type == "CallFailed"
    assert one.wait().error is None


# --------------------------------------------------------------------------- back-calls


def test_a_back_call_is_answered(bench, bystander):
    answer = bench.act("store")
    assert answer.error is None
    assert answer.texts == ["stored"]


def test_T_B_a_back_call_that_is_not_permitted_is_an_error_of_the_plugin(bench, bystander):
    answer = bench.act("ask_llm", seconds=10)
    assert "permission" in json.dumps(answer.error).lower()


# --------------------------------------------------------------------------- ends


def test_a_caller_that_leaves_frees_its_session_at_once(bench):
    answer = bench.call("hang").first()
    bench.until_sessions(1)
    answer.call.cancel()
    bench.until_sessions(0, 1.0)
    assert bench.act("echo", text="still here").texts == ["still here"]


def test_a_session_ends_at_its_deadline_typed_with_its_owner(bench, bystander):
    answer = bench.call("hang", seconds=0.5).wait(5)
    assert answer.error_type == "DeadlineExceeded"
    assert answer.error["args"]["owner"] == "caller"
    assert answer.error["args"]["seconds"] == pytest.approx(0.5, abs=0.1)


# --------------------------------------------------------------------------- admission


def test_T_B5_a_call_over_the_cap_waits_for_its_turn_and_is_then_refused(bench):
    held = [bench.call("hang").first() for _ in range(MOST)]
    early, late = bench.call("echo", text="early"), bench.call("echo", text="late")
    assert (bench.sessions(), bench.waiting()) == (MOST, 2)
    held.pop().call.cancel()
    assert early.wait(10).texts == ["early"]
    assert late.wait(10).texts == ["late"]  # the one before it has given its session back
    held.append(bench.call("hang").first())
    refused = bench.call("echo", text="no").wait(6)
    assert (refused.error_type, refused.texts) == ("Overloaded", [])
    assert refused.error["args"]["retry_after"] >= 1
    for one in held:
        one.call.cancel()
    bench.until_sessions(0)


def test_T_B5_who_leaves_the_line_leaves_nothing_behind(bench):
    held = [bench.call("hang").first() for _ in range(MOST)]
    waits = [bench.call("echo", text="never") for _ in range(3)]
    assert bench.waiting() == 3
    for one in waits:
        one.call.cancel()
    assert bench.waiting() == 0
    for one in held:
        one.call.cancel()
    bench.until_sessions(0)
    assert bench.act("echo", text="room").texts == ["room"]


# --------------------------------------------------------------------------- sizes


def test_a_message_of_6_MiB_is_delivered(bench, bystander):
    answer = bench.act("huge_line", size=6 << 20)
    assert answer.error is None
    assert [len(text) for text in answer.texts] == [6 << 20]


def test_T_P3_a_message_over_the_limit_costs_its_session_only(bench, bystander):
    answer = bench.act("huge_line", size=9 << 20)
    assert answer.error_type == "MessageTooLarge"
    assert answer.error["args"]["setting"] == "PLUGIN_RUNTIME_MAX_BUFFER_SIZE"


def test_a_request_of_4_MiB_reaches_the_plugin(bench, bystander):
    text = "ä" * (1 << 20)  # six bytes each in JSON as it is made here
    answer = bench.act("echo", text=text[: (4 << 20) // 6])
    assert answer.error is None
    assert answer.texts == [text[: (4 << 20) // 6]]


# --------------------------------------------------------------------------- garbage


def test_T_P1_what_the_plugin_prints_costs_nothing(bench, bystander):
    answer = bench.act("noise")
    assert answer.error is None
    assert answer.texts == [str(number) for number in range(10)]


def test_T_P10_half_a_message_costs_its_session_only(bench, bystander):
    answer = bench.act("written", line='{"event":"session","session_id":"SESSION","data":{"ty')
    assert answer.error_type == "ProtocolError"


def test_T_P10_an_unknown_kind_of_message_costs_its_session_only(bench, bystander):
    message = '{"event":"session","session_id":"SESSION","data":{"type":"dance","data":{}}}'
    answer = bench.act("written", line=message)
    assert answer.error_type == "unknown_stream_message_type"


def test_T_P5_events_that_nobody_knows_are_dropped(bench, bystander):
    lines = '{"event":"heartbeat"}\n{"event":"session","session_id":"nobody","data":{"type":"end"}}'
    answer = bench.act("written", line=lines)
    assert answer.error is None
    assert answer.texts == ["written"]


# --------------------------------------------------------------------------- crash


@pytest.mark.leaks("the plugin is another process afterwards")
def test_T_K_a_plugin_that_dies_ends_its_calls_typed_and_serves_again(bench):
    others = [bench.call("hang").first() for _ in range(3)]
    dying = bench.call("die")
    began = time.monotonic()
    for answer in (*others, dying):
        assert answer.wait(5).error_type in DEATHS[bench.runtime]
    assert time.monotonic() - began < patience(5)
    bench.revive()
    end = time.monotonic() + 30
    while (again := bench.act("echo", text="again")).error is not None:
        assert time.monotonic() < end, again.error
    assert again.texts == ["again"]
