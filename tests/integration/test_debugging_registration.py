"""Developers that connect by hand: keys, caps, refusals, shadows, late ends, dead hosts."""

from __future__ import annotations

import json
from contextlib import ExitStack

import gevent
import pytest
from gevent.event import Event
from sqlalchemy import text, update

from tests.debugging import (
    OTHER_TENANT,
    TENANT,
    DebugWorld,
    debugging_host,
    messages,
)
from tests.patience import patience
from tests.registrations import ICON, MANIFEST, TOOL
from tidegate.clock import SYSTEM_CLOCK
from tidegate.hosts.debugging import Limits
from tidegate.hosts.debugging.directory import LOST_AFTER
from tidegate.packages import asset_id
from tidegate.storage import debug_keys, debug_sessions, installations
from tidegate.storage.blobs import Layout
from tidegate.storage.tables import debug_keys as keys_table

PLUGIN = "acme/kitchen"
INSTALLED = "acme/kitchen:0.0.9@" + "ab" * 32
NOBODY = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def world(tmp_path):
    with debugging_host(tmp_path, Limits(drain=0.3)) as made:
        yield made


def install(world: DebugWorld, identifier: str = INSTALLED) -> str:
    """The rows of an ordinary installation; its id."""
    declared = json.dumps({"tool": {"identity": {"name": "kitchen"}}, "old": True})
    with world.database.write() as conn:
        done = installations.install(
            conn, TENANT, identifier, declared, source="package", meta={"a": 1}
        )
    return done.installation.id


def changed(version: str) -> dict:
    return {**MANIFEST, "version": version}


# --------------------------------------------------------------------------- keys


def test_a_tenant_keeps_its_key_while_it_asks_and_gets_a_new_one_after_two_hours(world):
    key = world.key()
    assert world.key() == key
    assert world.key(OTHER_TENANT) != key
    with world.database.write() as conn:
        assert debug_keys.tenant_of(conn, key) == TENANT
        conn.execute(update(keys_table).values(expires_at=SYSTEM_CLOCK.now()))
        assert debug_keys.tenant_of(conn, key) is None
    assert world.key() != key


@pytest.mark.parametrize("wait", [0.0, 0.2])
def test_a_wrong_key_is_told_in_one_line_however_much_was_sent(world, wait):
    with world.developer() as developer:
        developer.register(NOBODY)
        gevent.sleep(wait)
        developer.say(*messages())
        assert developer.line() == b"handshake failed, invalid key"
        assert developer.is_closed()
    assert world.debugging.directory.instances == []


def test_an_address_that_tries_keys_is_not_listened_to_any_more(tmp_path):
    limits = Limits(drain=0.1, wrong_keys=3)
    with debugging_host(tmp_path, limits) as world:
        for number in range(3):
            with world.developer() as developer:
                developer.handshake(f"{number}")
                assert developer.line() == b"handshake failed, invalid key"
        with world.developer() as developer:
            developer.handshake(world.key())
            assert b"too many invalid keys from 127.0.0.1" in developer.line()


def test_a_key_that_has_run_out_does_not_end_a_connection(world):
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        with world.database.write() as conn:
            conn.execute(update(keys_table).values(expires_at=SYSTEM_CLOCK.now()))
        answer = world.call(identifier, "echo", tenant=TENANT)
        developer.text(developer.request()["session_id"], "here")
        assert answer.first().texts == ["here"]


# --------------------------------------------------------------------------- refusals


def test_D_33_without_a_handshake_nothing_is_stored_or_registered(world):
    with world.developer() as developer:
        developer.say(*messages())
        assert developer.line().startswith(b"handshake failed, invalid handshake message")
    key = Layout(world.settings).asset(asset_id("icon.svg", ICON))
    assert not world.blobs.exists(key)
    assert world.debugging.directory.instances == []


@pytest.mark.parametrize("sent", ["nothing", "half"])
def test_T_S10_who_does_not_show_a_key_in_time_is_hung_up_on(tmp_path, sent):
    with debugging_host(tmp_path, Limits(handshake=0.2, drain=0.1)) as world:
        with world.developer() as developer:
            if sent == "half":
                developer.socket.sendall(b'{"type":"hands')
            assert developer.line() == b"handshake failed, no key came within 0.2 seconds"
            assert developer.is_closed()
        world.until(lambda: world.debugging.admission.connections == 0)


def test_who_does_not_end_the_registration_in_time_is_hung_up_on(tmp_path):
    with (
        debugging_host(tmp_path, Limits(registration=0.2, drain=0.1)) as world,
        world.developer() as developer,
    ):
        developer.handshake(world.key())
        developer.say(*messages()[:2])
        assert b"the registration did not end within 0.2 seconds" in developer.line()


@pytest.mark.parametrize(
    ("manifest", "tool", "line"),
    [
        ({**MANIFEST, "version": "one"}, TOOL, b"handshake failed, invalid plugin declaration: "),
        ({**MANIFEST, "author": "A B"}, TOOL, b"handshake failed, invalid plugin declaration: "),
        ({**MANIFEST, "author": TENANT}, TOOL, b"handshake failed, invalid plugin declaration: "),
        ({**MANIFEST, "icon": "none.svg"}, TOOL, b"assets remap failed, invalid assets data"),
        (MANIFEST, {**TOOL, "identity": 7}, b"tools register failed, invalid tools declaration: "),
        (MANIFEST, {"identity": {}}, b"tools register failed, invalid tools declaration: "),
    ],
)
def test_what_a_declaration_lacks_is_told(world, manifest, tool, line):
    with world.developer() as developer:
        developer.register(world.key(), manifest=manifest, tool=tool)
        assert developer.line().startswith(line)


def test_connections_have_a_cap_that_holds_and_comes_free_again(tmp_path):
    with debugging_host(tmp_path, Limits(connections=2, drain=0.1)) as world:
        with world.developer() as one, world.developer() as two:
            one.handshake(world.key())
            two.handshake(world.key())
            world.until(lambda: world.debugging.admission.connections == 2)
            with world.developer() as third:
                assert third.line() == b"server is busy now, please try again later"
        world.until(lambda: world.debugging.admission.connections == 0)
        with world.developer() as developer:
            developer.register(world.key())
            assert world.connected(PLUGIN)


def test_strangers_of_one_address_have_a_cap_of_their_own(tmp_path):
    with debugging_host(tmp_path, Limits(strangers=1, drain=0.1)) as world, world.developer():
        world.until(lambda: world.debugging.admission.connections == 1)
        with world.developer() as two:
            assert two.line() == b"server is busy now, please try again later"


def test_a_tenant_has_a_cap_that_holds_and_others_are_not_in_it(tmp_path):
    with debugging_host(tmp_path, Limits(per_tenant=1, drain=0.1)) as world:
        with world.developer() as one, world.developer() as two, world.developer() as other:
            one.register(world.key())
            assert world.connected(PLUGIN)
            two.register(world.key(), manifest={**MANIFEST, "name": "garden"})
            assert two.line() == b"server is busy now, please try again later"
            other.register(world.key(OTHER_TENANT))
            assert world.connected(PLUGIN, OTHER_TENANT)
        world.until(lambda: world.installation(PLUGIN) is None)


def test_a_tenants_cap_holds_for_registrations_that_end_at_once(tmp_path, monkeypatch):
    """Counted were those whose icons and rows were kept, and all others passed meanwhile."""
    with debugging_host(tmp_path, Limits(per_tenant=2, drain=0.1)) as world:
        gate, exists = Event(), world.blobs.exists
        monkeypatch.setattr(world.blobs, "exists", lambda key: gate.wait(20) and exists(key))
        with ExitStack() as stack:
            developers = [stack.enter_context(world.developer()) for _ in range(5)]
            for number, developer in enumerate(developers):
                developer.register(world.key(), manifest={**MANIFEST, "name": f"garden{number}"})
            world.until(lambda: world.debugging.admission.connections == 2)
            gate.set()
            world.until(lambda: len(world.debugging.directory.instances) == 2)
        world.until(lambda: not world.debugging.directory._seats)


def test_signs_of_life_go_on_when_somebody_leaves_meanwhile(world, monkeypatch):
    """The greenlet that gives them ended; after five minutes other hosts took the rows back."""
    directory = world.debugging.directory
    with world.developer() as one, world.developer() as two:
        one.register(world.key(), manifest={**MANIFEST, "name": "kitchen"})
        world.connected(PLUGIN)
        two.register(world.key(), manifest={**MANIFEST, "name": "garden"})
        world.connected("acme/garden")
        settle, settled = directory._settle, []

        def leaves(key, identifier, **more):
            settled.append(key)
            if len(settled) == 1:
                for stack in [s for k, s in directory._connected.items() if k != key]:
                    directory.remove(stack[-1])
            return settle(key, identifier, **more)

        monkeypatch.setattr(directory, "_settle", leaves)
        monkeypatch.setattr(debug_sessions, "renew", lambda conn, owner: 0)
        directory._renew()
        assert len(settled) == 2, "the first one's, and that of the end of the other"


# --------------------------------------------------------------------------- identity


def test_a_registration_becomes_an_installation_of_its_tenant_alone(world):
    with world.developer() as developer, world.developer() as other:
        developer.register(world.key())
        other.register(world.key(OTHER_TENANT))
        identifier = world.connected(PLUGIN)
        theirs = world.connected(PLUGIN, OTHER_TENANT)
        assert identifier.startswith("acme/kitchen:0.0.1@")
        assert len(identifier.partition("@")[2]) == 64
        assert identifier != theirs
        icon = asset_id("icon.svg", ICON)
        declaration = world.declaration(identifier)
        assert declaration["icon"] == declaration["tool"]["identity"]["icon"] == icon
        assert declaration["tool"]["identity"]["description"]["en_US"] == "A kitchen"
        assert world.blobs.load(Layout(world.settings).asset(icon)) == ICON
        stranger = world.call(identifier, "echo", tenant=OTHER_TENANT).wait()
        assert "no available node" in stranger.error["message"]


def test_every_process_is_told_of_a_registration_and_of_its_end(world):
    world.control("figures")  # the link stands
    with world.developer() as developer:
        developer.register(world.key())
        world.connected(PLUGIN)
        world.until(lambda: len(world.notices) == 1)
    world.until(lambda: len(world.notices) == 2)
    before, after = (json.loads(one)["generation"] for one in world.notices)
    assert after > before


def test_status_shows_who_is_connected(world):
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        (status,) = world.control("status", identifier=identifier).chunks
        assert (status["runtime"], status["phase"], status["tenant"]) == ("remote", "up", TENANT)


# --------------------------------------------------------------------------- shadows


def test_D_55_a_debug_session_shadows_the_installation_which_comes_back_afterwards(world):
    installation_id = install(world)
    before = world.installation(PLUGIN)
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        shadowing = world.installation(PLUGIN)
        assert shadowing.id == installation_id
        assert (shadowing.identifier, shadowing.source) == (identifier, "remote")
        assert world.declaration(INSTALLED)["old"] is True
        with world.database.read() as conn:
            assert installations.is_installed_anywhere(conn, INSTALLED)
    world.until(lambda: world.installation(PLUGIN).identifier == INSTALLED)
    after = world.installation(PLUGIN)
    assert (after.id, after.runtime_type, after.source, after.meta) == (
        before.id, before.runtime_type, before.source, before.meta,
    )  # fmt: skip
    assert world.declaration(identifier) is None


def test_an_installation_that_is_removed_meanwhile_stays_removed(world):
    installation_id = install(world)
    with world.developer() as developer:
        developer.register(world.key())
        world.connected(PLUGIN)
        with world.database.write() as conn:
            installations.uninstall(conn, TENANT, installation_id)
    world.until(lambda: not world.debugging.directory.instances)
    with world.database.read() as conn:
        assert debug_sessions.find(conn, TENANT, PLUGIN) is None
        assert installations.find(conn, TENANT, PLUGIN) is None


def test_D_66_the_late_end_of_an_old_connection_leaves_the_new_one_alone(world):
    with world.developer() as old, world.developer() as new:
        old.register(world.key())
        identifier = world.connected(PLUGIN)
        first = world.debugging.directory.find(identifier)
        new.register(world.key())
        world.until(lambda: world.debugging.directory.find(identifier) is not first)
        old.socket.close()
        world.until(lambda: len(world.debugging.directory.instances) == 1)
        assert world.installation(PLUGIN).identifier == identifier
        answer = world.call(identifier, "echo", tenant=TENANT)
        new.text(new.request()["session_id"], "from the new one")
        assert answer.first().texts == ["from the new one"]


def test_the_newest_connection_serves_and_the_one_before_it_serves_again(world):
    install(world)
    with world.developer() as one:
        one.register(world.key())
        first = world.connected(PLUGIN)
        with world.developer() as two:
            two.register(world.key(), manifest=changed("0.0.2"))
            world.until(lambda: world.installation(PLUGIN).identifier != first)
            assert world.installation(PLUGIN).identifier.startswith("acme/kitchen:0.0.2@")
        world.until(lambda: world.installation(PLUGIN).identifier == first)
    world.until(lambda: world.installation(PLUGIN).identifier == INSTALLED)


def test_a_connection_without_calls_gives_way_at_the_cap(tmp_path):
    with (
        debugging_host(tmp_path, Limits(per_tenant=2, drain=0.1)) as world,
        world.developer() as one,
        world.developer() as two,
        world.developer() as three,
    ):
        for number, developer in enumerate((one, two, three)):
            developer.register(world.key(), manifest=changed(f"0.0.{number}"))
            start = f"acme/kitchen:0.0.{number}@"
            world.until(lambda start=start: world.connected(PLUGIN).startswith(start))
        assert one.is_closed()
        assert not two.is_closed(0.1)


def test_rows_of_a_host_that_was_killed_are_put_back_at_its_next_start(world):
    install(world)
    with world.database.write() as conn:
        debug_sessions.connect(
            conn, TENANT, "acme/kitchen:0.0.1@" + "cd" * 32, "{}", world.debugging.directory._owner
        )
    assert world.installation(PLUGIN).runtime_type == "remote"
    world.debugging.directory.sweep()
    assert world.installation(PLUGIN).identifier == INSTALLED


def test_rows_of_another_host_that_gives_no_sign_are_put_back(world):
    install(world)
    with world.database.write() as conn:
        debug_sessions.connect(conn, TENANT, "acme/kitchen:0.0.1@" + "cd" * 32, "{}", "elsewhere")
    world.debugging.directory.sweep()
    assert world.installation(PLUGIN).runtime_type == "remote"
    with world.database.write() as conn:
        conn.execute(
            update(debug_sessions.table).values(updated_at=SYSTEM_CLOCK.now() - 2 * LOST_AFTER)
        )
    world.debugging.directory._renew()
    assert world.installation(PLUGIN).identifier == INSTALLED


# --------------------------------------------------------------------------- sessions


def test_calls_of_a_broken_connection_end_at_once_and_typed(world):
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        answer = world.call(identifier, "echo", tenant=TENANT)
        developer.text(developer.request()["session_id"], "last words")
        answer.first()
    answer.wait(patience(1))
    assert answer.texts == ["last words"]
    assert answer.error_type == "ConnectionClosedError"


def test_a_back_call_of_a_debugged_plugin_is_answered_on_its_connection(world):
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        answer = world.call(identifier, "echo", tenant=TENANT)
        session = developer.request()["session_id"]
        invoke = {"type": "llm", "backwards_request_id": "r1", "request": {"provider": "x"}}
        developer.answer(session, "invoke", invoke)
        told = developer.request()
        assert (told["event"], told["data"]["event"]) == ("backwards_response", "error")
        developer.answer(session, "end", {})
        assert answer.wait().error is None


def test_what_cannot_be_read_costs_its_session_only(world):
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        one = world.call(identifier, "echo", tenant=TENANT, session="one")
        two = world.call(identifier, "echo", tenant=TENANT, session="two")
        developer.request(), developer.request()
        developer.socket.sendall(
            b'{"event":"session","session_id":"one","data":{"ty\n\xff garbage\n'
        )
        assert one.wait().error_type == "ProtocolError"
        developer.text("two", "still here")
        developer.answer("two", "end", {})
        assert two.wait().texts == ["still here"]


def test_a_host_that_stops_lets_calls_end_and_puts_rows_back(world):
    install(world)
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        answer = world.call(identifier, "echo", tenant=TENANT)
        session = developer.request()["session_id"]
        stopping = gevent.spawn(world.debugging.stop, 10.0)
        gevent.sleep(0)
        developer.text(session, "done")
        developer.answer(session, "end", {})
        assert answer.wait().texts == ["done"]
        stopping.join(5)
        assert developer.is_closed()
    assert world.installation(PLUGIN).identifier == INSTALLED


def test_an_address_that_is_taken_is_a_line_in_the_log_and_the_host_lives(world, monkeypatch):
    monkeypatch.setattr("tidegate.hosts.debugging.listener._BIND_AGAIN", ())
    second = world.make_debugging()
    second._settings = type(
        "Taken",
        (),
        {
            "plugin_remote_installing_enabled": True,
            "plugin_remote_installing_host": "127.0.0.1",
            "plugin_remote_installing_port": world.debugging.port,
        },
    )()
    second.start()
    gevent.sleep(0.05)
    assert second.port == 0
    second.stop(0)


def test_switched_off_nobody_listens(tmp_path):
    with debugging_host(tmp_path) as world:
        off = world.make_debugging()
        off._settings = type("Off", (), {"plugin_remote_installing_enabled": False})()
        off.start()
        gevent.sleep(0)
        assert off.port == 0


@pytest.mark.parametrize("whose", ["INSTANCE", "PLUGIN", "TENANT"])
def test_T_B5_a_call_over_the_cap_waits_for_its_turn_and_is_then_refused(tmp_path, whose):
    caps = {f"TIDEGATE_{whose}_SESSIONS": 1, "TIDEGATE_ADMISSION_WAIT": 0.7}
    with debugging_host(tmp_path, **caps) as world, world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        one = world.call(identifier, "echo", tenant=TENANT)
        session = developer.request()["session_id"]
        waits = world.call(identifier, "echo", tenant=TENANT)
        world.until(lambda: world.control("status").chunks[0]["waiting"] == 1)
        developer.answer(session, "end", {})
        assert one.wait().error is None
        session = developer.request()["session_id"]
        refused = world.call(identifier, "echo", tenant=TENANT).wait(patience(3))
        assert refused.error_type == "Overloaded"
        assert refused.error["args"]["retry_after"] == 1
        developer.answer(session, "end", {})
        assert waits.wait().error is None
        world.call(identifier, "echo", tenant=TENANT)
        developer.request()
    assert world.host.admission.may(TENANT)


def test_calls_that_wait_end_with_the_connection(tmp_path):
    caps = {"TIDEGATE_INSTANCE_SESSIONS": 1, "TIDEGATE_ADMISSION_WAIT": 60}
    with debugging_host(tmp_path, **caps) as world:
        with world.developer() as developer:
            developer.register(world.key())
            identifier = world.connected(PLUGIN)
            calls = [world.call(identifier, "echo", tenant=TENANT) for _ in range(3)]
            world.until(lambda: world.control("status").chunks[0]["waiting"] == 2)
        for call in calls:
            assert call.wait(patience(2)).error_type == "ConnectionClosedError"
        assert world.host.admission.may(TENANT)


def test_figures_count_debugged_plugins_and_their_sessions(world):
    with world.developer() as developer:
        developer.register(world.key())
        identifier = world.connected(PLUGIN)
        world.call(identifier, "echo", tenant=TENANT)
        developer.request()
        (figures,) = world.control("figures").chunks
        assert figures["elsewhere"] == {"remote": {PLUGIN: 1}}


# --------------------------------------------------------------------------- storage away


def rename(world: DebugWorld, table: str, to: str) -> None:
    """Take a table away, or give it back."""
    with world.database.write() as conn:
        conn.execute(text(f"ALTER TABLE {table} RENAME TO {to}"))


def test_storage_that_is_away_when_the_key_is_looked_up_is_told(world):
    key = world.key()
    rename(world, "tidegate_debug_keys", "away")
    with world.developer() as developer:
        developer.register(key)
        assert developer.line().startswith(b"failed to get connection info: ")
        assert developer.is_closed()


def test_storage_that_is_away_at_the_registration_is_told_and_nothing_stays(world):
    key = world.key()
    rename(world, "tidegate_debug_sessions", "away")
    with world.developer() as developer:
        developer.register(key)
        assert developer.line().startswith(b"register failed, ")
        assert developer.is_closed()
        world.until(lambda: not world.debugging.directory.instances)
    rename(world, "away", "tidegate_debug_sessions")
    with world.developer() as developer:
        developer.register(key)
        assert world.connected(PLUGIN)


def test_storage_that_is_away_at_the_end_gets_its_rows_right_later(world, monkeypatch):
    monkeypatch.setattr("tidegate.hosts.debugging.directory._RETRY", 0.1)
    install(world)
    with world.developer() as developer:
        developer.register(world.key())
        world.connected(PLUGIN)
        rename(world, "tidegate_debug_sessions", "away")
    world.until(lambda: not world.debugging.directory.instances)
    assert world.installation(PLUGIN).runtime_type == "remote"
    rename(world, "away", "tidegate_debug_sessions")
    world.until(lambda: world.installation(PLUGIN).identifier == INSTALLED)
