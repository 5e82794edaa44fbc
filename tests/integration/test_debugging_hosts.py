"""Two hosts on one database: a developer connects to one of them, calls come to the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import gevent
import pytest
from sqlalchemy import text, update

from tests.debugging import OTHER_TENANT, TENANT, DebugWorld, debugging_host
from tests.hosting import Answer
from tests.patience import patience
from tests.registrations import MANIFEST
from tests.servers import pooled
from tidegate.hosts.debugging.directory import RENEW_EVERY
from tidegate.hosts.neighbours import address_of, owner_of
from tidegate.settings import Settings
from tidegate.storage import debug_sessions
from tidegate.storage.tables import debug_sessions as debug_rows

MISBEHAVE = "tidegate/misbehave"
PLUGIN = f"{MANIFEST['author']}/{MANIFEST['name']}"
LIMITS = {"PLUGIN_RUNTIME_MAX_BUFFER_SIZE": 8 << 20}

pytestmark = pytest.mark.limit(120, "starts hosts, and a plugin with the real SDK")


@dataclass
class Hosts:
    """``desk`` is where the developer connects, ``other`` where calls come."""

    desk: DebugWorld
    other: DebugWorld
    variables: dict[str, str]

    def third(self, folder: Path) -> AbstractContextManager[DebugWorld]:
        """One more host for a while."""
        return debugging_host(folder, **LIMITS, **self.variables)

    def call(self, identifier: str, deed: str, *, tenant: str = TENANT, **given: object) -> Answer:
        return self.other.call(identifier, deed, tenant=tenant, **given)


@pytest.fixture(scope="module", params=["unix", "tcp"])
def hosts(request, postgres, tmp_path_factory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp(request.param)
    more = {"TIDEGATE_LINK_TCP": "127.0.0.1:0"} if request.param == "tcp" else {}
    with (
        pooled(postgres),  # fifty calls at once let the pools of the database grow
        postgres.database() as variables,
        debugging_host(folder / "desk", **LIMITS, **variables, **more) as desk,
        debugging_host(folder / "other", **LIMITS, **variables, **more) as other,
    ):
        for one, another in ((desk, other), (other, desk)):
            # the connection of two hosts stays, once it was needed
            assert "not found" in astray(one, another).error["message"]
        yield Hosts(desk, other, variables)


def astray(world: DebugWorld, named: DebugWorld) -> Answer:
    """A call at ``world`` of a plugin whose row names ``named``, which does not have it."""
    identifier = f"{PLUGIN}:0.0.1@{'e' * 64}"
    with row(world, identifier, owner_of(named.settings), named.address):
        return world.call(identifier, "echo", tenant=TENANT).wait(5)


@contextmanager
def row(world: DebugWorld, identifier: str, owner: str, address: str):
    """Says of a version that it is connected at ``owner``."""
    with world.database.write() as conn:
        debug_sessions.connect(conn, TENANT, identifier, "{}", owner, address)
    yield
    with world.database.write() as conn:
        debug_sessions.disconnect(conn, TENANT, identifier, owner)


@contextmanager
def registered(world: DebugWorld, key: str):
    with world.developer() as developer:
        developer.register(key)
        yield developer


def test_T36_a_call_at_another_host_reaches_the_plugin_at_its_developers(hosts):
    with hosts.desk.sdk() as process:
        identifier = hosts.desk.connected(MISBEHAVE)
        answer = hosts.call(identifier, "stream", count=300).wait()
        assert (answer.error, answer.texts) == (None, [f"{number} " for number in range(300)])
        failed = hosts.call(identifier, "fail").wait()
        assert (failed.texts, failed.error_type) == (["before"], "ValueError")
        large = hosts.call(identifier, "huge_line", size=6 << 20).wait()
        assert [len(text) for text in large.texts] == [6 << 20]
        assert hosts.call(identifier, "store").wait().texts == ["stored"]  # a back-call
        late = hosts.call(identifier, "hang", seconds=0.5).wait(5)
        assert late.error_type == "DeadlineExceeded"
        answers = [hosts.call(identifier, "stream", count=40) for _ in range(50)]
        for one in answers:
            assert one.wait(30).texts == [f"{number} " for number in range(40)]
        hanging = hosts.call(identifier, "hang").first()
        process.child.kill()
        assert hanging.wait(5).error_type == "ConnectionClosedError"
        hosts.desk.until(lambda: hosts.desk.installation(MISBEHAVE) is None)
        gone = hosts.call(identifier, "echo").wait(5)
        assert "plugin runtime not found" in gone.error["message"]


def test_T36_ten_minutes_at_a_breakpoint_cost_neither_connection_nor_registration(hosts):
    """Nobody waits for ten minutes here: the rows grow older instead. `make soak` does wait."""
    with hosts.desk.sdk() as process:
        identifier = hosts.desk.connected(MISBEHAVE)
        instance = hosts.desk.debugging.directory.find(identifier)
        process.child.signal(signal.SIGSTOP)
        patient = hosts.call(identifier, "echo", text="patient", seconds=900)
        for _ in range(10):
            with hosts.desk.database.write() as conn:
                (row,) = conn.execute(debug_rows.select())
                older = row.updated_at - timedelta(seconds=RENEW_EVERY)
                conn.execute(update(debug_rows).values(updated_at=older))
            hosts.other.debugging.directory._renew()  # it would take back what is lost
            hosts.desk.debugging.directory._renew()
        assert hosts.other.connected(MISBEHAVE) == identifier
        process.child.signal(signal.SIGCONT)
        assert patient.wait().texts == ["patient"]
        assert hosts.desk.debugging.directory.find(identifier) is instance
    hosts.desk.until(lambda: hosts.desk.installation(MISBEHAVE) is None)


def test_a_caller_at_another_host_that_leaves_frees_the_session(hosts):
    with registered(hosts.desk, hosts.desk.key()) as developer:
        identifier = hosts.desk.connected(PLUGIN)
        instance = hosts.desk.debugging.directory.find(identifier)
        call = hosts.call(identifier, "echo")
        developer.request()
        assert instance.load == 1
        call.call.cancel()
        hosts.desk.until(lambda: not instance.load, patience(1.0))


def test_a_host_that_stops_lets_calls_by_way_of_it_end(hosts, tmp_path):
    with registered(hosts.desk, hosts.desk.key()) as developer:
        identifier = hosts.desk.connected(PLUGIN)
        with hosts.third(tmp_path) as third:
            call = third.call(identifier, "echo", tenant=TENANT)
            session = developer.request()["session_id"]
            stopping = gevent.spawn(third.host.stop, 30.0)
            gevent.sleep(0)
            refused = third.call(identifier, "echo", tenant=TENANT).wait(5)
            assert "the host is stopping" in refused.error["message"]
            developer.text(session, "in time")
            developer.answer(session, "end", {})
            assert call.wait(5).texts == ["in time"]
            stopping.get(timeout=5)


def test_a_debugged_plugin_is_callable_at_every_host_within_a_second(hosts):
    with registered(hosts.desk, hosts.desk.key()) as developer:
        began = time.monotonic()
        identifier = hosts.desk.connected(PLUGIN)
        call = hosts.call(identifier, "echo")
        session = developer.request()["session_id"]
        developer.answer(session, "end", {})
        assert call.wait(5).error is None
        assert time.monotonic() - began < patience(1)


def test_T_S11_another_tenants_plugin_is_not_found_at_another_host_either(hosts):
    with registered(hosts.desk, hosts.desk.key()):
        identifier = hosts.desk.connected(PLUGIN)
        answer = hosts.call(identifier, "echo", tenant=OTHER_TENANT).wait(5)
        assert "plugin runtime not found" in answer.error["message"]


def test_D_66_a_developer_who_comes_back_at_another_host_is_served_there(hosts):
    key = hosts.desk.key()
    with hosts.desk.developer() as old:
        old.register(key)
        identifier = hosts.desk.connected(PLUGIN)
        with registered(hosts.other, key) as new:
            hosts.other.until(lambda: hosts.other.debugging.directory.find(identifier))
            hosts.other.until(lambda: _owner(hosts, identifier) == owner_of(hosts.other.settings))
            old.socket.close()  # late: its host must leave the rows to the newer connection
            hosts.desk.until(lambda: hosts.desk.debugging.directory.find(identifier) is None)
            hosts.desk.debugging.directory._renew()
            assert _owner(hosts, identifier) == owner_of(hosts.other.settings)
            for world in (hosts.other, hosts.desk):
                call = world.call(identifier, "echo", tenant=TENANT)
                new.answer(new.request()["session_id"], "end", {})
                assert call.wait(5).error is None
    hosts.desk.until(lambda: hosts.desk.installation(PLUGIN) is None)


def test_a_call_goes_no_further_than_to_the_host_that_the_row_names(hosts):
    """Rows that are wrong at both hosts must not send a call to and fro."""
    answer = astray(hosts.other, hosts.desk)
    assert "plugin runtime not found" in answer.error["message"]


@pytest.mark.parametrize("address", ["", "/nowhere/host.sock"])
def test_an_owner_without_a_link_over_the_network_is_named_with_what_to_do(hosts, address):
    identifier = f"{PLUGIN}:0.0.1@{'f' * 64}"
    with row(hosts.desk, identifier, "far-away:/srv", address):
        answer = hosts.call(identifier, "echo").wait(5)
    assert answer.error_type == "HostLost"
    assert "far-away" in answer.error["message"]
    assert "TIDEGATE_LINK_TCP" in answer.error["message"]


def test_an_owner_that_is_away_ends_the_call_typed(hosts):
    identifier = f"{PLUGIN}:0.0.1@{'d' * 64}"
    with row(hosts.desk, identifier, "far-away:/srv", "127.0.0.1:1"):
        answer = hosts.call(identifier, "echo").wait(10)
    assert answer.error_type == "HostLost"
    assert "127.0.0.1:1" in answer.error["message"]


def test_a_call_is_served_here_when_the_rows_cannot_be_looked_at(tmp_path):
    """A plugin that is a process needs no database to run."""
    identifier = f"{PLUGIN}:0.0.1@{'b' * 64}"
    with debugging_host(tmp_path) as world:
        with world.database.write() as conn:
            conn.execute(text("ALTER TABLE tidegate_debug_sessions RENAME TO away"))
        answer = world.call(identifier, "echo", tenant=TENANT).wait(5)
    assert answer.error_type == "PluginStartFailed"  # by its supervisor: there is no such package
    assert "plugin runtime not found" in answer.error["message"]


@pytest.mark.parametrize(
    ("tcp", "advertise", "address"),
    [
        ("10.0.0.4:5004", "", "10.0.0.4:5004"),
        ("[fd00::1]:5004", "", "[fd00::1]:5004"),
        ("0.0.0.0:5004", "tide-1.internal:6000", "tide-1.internal:6000"),
        ("0.0.0.0:5004", "", "{machine}:5004"),
        ("[::]:5004", "", "{machine}:5004"),
        ("127.0.0.1:5004", "", "{socket}"),
        (":5004", "", "{socket}"),
        ("", "", "{socket}"),
    ],
)
def test_a_host_says_where_others_reach_its_link(tmp_path, tcp, advertise, address):
    given = {"TIDEGATE_LINK_TCP": tcp, "TIDEGATE_LINK_ADVERTISE": advertise}
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path), **given})
    machine = owner_of(settings).partition(":")[0]
    socket = str(tmp_path / "run" / "host.sock")
    found = address_of(settings)
    if address == "{socket}":
        assert found.endswith("host.sock")
        assert found.startswith("/")
    else:
        assert found == address.format(machine=machine, socket=socket)


def _owner(hosts: Hosts, identifier: str) -> str:
    with hosts.desk.database.read() as conn:
        row = debug_sessions.find_version(conn, TENANT, identifier)
    return row.owner if row is not None else ""
