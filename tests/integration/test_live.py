"""The live socket: many calls over one WebSocket, on a real worker and a real link."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from wsproto.events import BytesMessage, CloseConnection, Message, Ping

from tests.integration.door_world import TENANT, WEATHER, World, world
from tests.integration.live_client import LiveClient
from tests.patience import patience
from tidegate.api import live

TOOL = {"provider": "weather", "tool": "now", "tool_parameters": {}, "credentials": {}}
TEXT = {"type": "text", "message": {"text": "18 \u00b0C"}, "meta": None}
PATH = f"/plugin/{TENANT}/live"


def weather(call: Any) -> None:
    call.send('{"type":"text","message":{"text":"18 \u00b0C"},"meta":null}'.encode())
    call.finish()


def rude(call: Any) -> None:
    call.fail(b'{"error_type":"InvokeRateLimitError","message":"429","args":null}')


def silent(call: Any) -> None:
    call.send(b'{"type":"text","message":{"text":"..."},"meta":null}')
    Event().wait()


PLUGINS = {"acme/weather": weather, "acme/rude": rude, "acme/silent": silent}


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture
def door(tmp_path, settings):
    with world(tmp_path, PLUGINS, **settings) as made:
        for name in ("weather", "rude", "silent"):
            made.install(WEATHER.replace("weather", name))
        yield made


@pytest.fixture
def connect(door: World):
    clients = []

    def make(path: str = PATH, key: bytes = b"secret") -> LiveClient:
        client = LiveClient(door.address, path, [(b"X-Api-Key", key)])
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def call(client: LiveClient, call_id: Any = 1, plugin: str = "acme/weather", **more: Any) -> None:
    client.send(id=call_id, plugin=plugin, action="tool/invoke", data=TOOL, **more)


def test_R19_the_upgrade_really_happens_and_a_call_streams(connect) -> None:
    client = connect()
    assert client.status == 101
    call(client, "one")
    assert client.all_of("one") == [
        {"id": "one", "chunk": TEXT},
        {"id": "one", "end": True},
    ]


def test_a_wrong_key_gets_no_upgrade(connect) -> None:
    assert connect(key=b"wrong").status == 401


def test_a_plain_request_is_told_to_upgrade(door: World) -> None:
    assert door.call("GET", PATH)[0] == 426


def test_many_calls_share_a_connection(door: World, connect) -> None:
    client = connect()
    call(client, 1, "acme/silent")
    assert client.next()["id"] == 1
    for number in range(2, 50):
        call(client, number)
    ended = set()
    while len(ended) < 48:
        message = client.next()
        if "end" in message:
            ended.add(message["id"])
    assert ended == set(range(2, 50))
    assert door.host.cancelled == []


def test_an_id_is_free_again_when_its_call_ended(connect) -> None:
    client = connect()
    for _ in range(3):
        call(client)
        assert client.all_of(1)[-1] == {"id": 1, "end": True}


def test_what_a_dispatch_body_may_have_goes_along(door: World, connect) -> None:
    client = connect()
    call(client, user_id="u1", conversation_id="c1")
    client.all_of(1)
    line = door.host.line()
    assert (line["data"]["user_id"], line["conversation_id"]) == ("u1", "c1")


def test_the_plugins_error_ends_its_call_only(connect) -> None:
    client = connect()
    call(client, "bad", "acme/rude")
    assert client.all_of("bad") == [
        {
            "id": "bad",
            "error": {"error_type": "InvokeRateLimitError", "message": "429", "args": None},
        }
    ]
    call(client)
    assert client.all_of(1)[-1] == {"id": 1, "end": True}


@pytest.mark.parametrize(
    ("message", "error_type"),
    [
        ({"plugin": "a/b", "action": "tool/invoke", "data": TOOL}, "PluginNotFoundError"),
        ({"action": "tool/invoke", "data": TOOL}, "PluginNotFoundError"),
        (
            {"plugin": "acme/weather", "action": "tool/dance", "data": TOOL},
            "PluginDaemonNotFoundError",
        ),
        (
            {"plugin": "acme/weather", "action": "tool/invoke", "data": {}},
            "PluginDaemonBadRequestError",
        ),
        ({"plugin": "acme/weather", "action": "tool/invoke"}, "PluginDaemonBadRequestError"),
    ],
)
def test_a_call_that_cannot_begin_ends_typed(
    connect, message: dict[str, Any], error_type: str
) -> None:
    client = connect()
    client.send(id=7, **message)
    [answer] = client.all_of(7)
    assert answer["error"]["error_type"] == error_type


def test_a_cancelled_call_ends_and_its_session_too(door: World, connect) -> None:
    client = connect()
    call(client, "long", "acme/silent")
    assert client.next()["id"] == "long"
    client.send(id="long", cancel=True)
    assert client.all_of("long") == [{"id": "long", "end": True}]
    assert door.host.cancelled_event.wait(patience(1))
    client.send(id="long", cancel=True)  # over already: nothing happens
    call(client)
    assert client.all_of(1)[-1] == {"id": 1, "end": True}


def test_a_client_that_leaves_cancels_its_calls(door: World, connect) -> None:
    client = connect()
    for number in (1, 2):
        call(client, number, "acme/silent")
        client.next()
    client.close()
    while len(door.host.cancelled) < 2:
        door.host.cancelled_event.clear()
        assert door.host.cancelled_event.wait(patience(1))


def test_another_tenant_has_not_the_plugins(door: World, connect) -> None:
    client = connect(PATH.replace("0b7f", "1b7f"))
    call(client)
    assert client.all_of(1)[0]["error"]["error_type"] == "PluginNotFoundError"


# ------------------------------------------------------------------ protocol


def test_a_ping_is_answered(connect) -> None:
    client = connect()
    client.send_event(Ping(b"x"))
    assert client.next() == "pong"


def test_a_client_that_does_not_answer_pings_is_given_up(door: World, connect, monkeypatch) -> None:
    monkeypatch.setattr(live, "PING_SECONDS", 0.2)
    alive, dead = connect(), connect()
    dead.answers_pings = False
    messages = gevent.spawn(alive.all_of, 1)
    assert dead.wait_closed() == 0
    assert dead.pings == 1
    call(alive)
    assert messages.get()[-1] == {"id": 1, "end": True}
    assert alive.pings >= 1


def test_a_message_in_fragments_is_one_message(connect) -> None:
    client = connect()
    text = (
        '{"id":1,"plugin":"acme/weather","action":"tool/invoke","data":{"provider":"w","tool":"n"}}'
    )
    for part, last in ((text[:10], False), (text[10:40], False), (text[40:], True)):
        client.send_event(Message(data=part, message_finished=last))
    assert client.all_of(1)[-1] == {"id": 1, "end": True}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no json", 1007),
        ("[]", 1007),
        ("{}", 1007),
        ('{"id":null}', 1007),
        ('{"id":{}}', 1007),
        ('{"id":"' + "x" * 300 + '"}', 1007),
        ('{"id":1,"plugin":5}', 1007),
    ],
)
def test_what_is_no_message_closes_the_connection(connect, text: str, code: int) -> None:
    client = connect()
    client.send_text(text)
    assert client.wait_closed() == code


def test_bytes_close_the_connection(connect) -> None:
    client = connect()
    client.send_event(BytesMessage(b"{}"))
    assert client.wait_closed() == 1003


def test_an_id_in_use_closes_the_connection(connect) -> None:
    client = connect()
    call(client, 1, "acme/silent")
    client.next()
    call(client, 1, "acme/silent")
    assert client.wait_closed() == 1008


@pytest.mark.parametrize("settings", [{"TIDEGATE_MAX_BODY": "1000"}])
def test_a_message_over_the_limit_closes_the_connection(connect) -> None:
    client = connect()
    client.send_event(Message(data="x" * 900, message_finished=False))
    client.send_event(Message(data="x" * 200, message_finished=False))
    assert client.wait_closed() == 1009


@pytest.mark.parametrize("settings", [{"TIDEGATE_MAX_BODY": "1000"}])
def test_the_limit_of_a_message_counts_bytes_and_not_characters(connect) -> None:
    client = connect()
    client.send_event(Message(data="\u732b" * 400, message_finished=False))
    assert client.wait_closed() == 1009


@pytest.mark.parametrize("settings", [{"TIDEGATE_LIVE_SESSIONS": "1"}])
def test_more_calls_than_allowed_are_refused_typed(connect) -> None:
    client = connect()
    call(client, 1, "acme/silent")
    client.next()
    call(client, 2)
    [answer] = client.all_of(2)
    assert answer["error"]["error_type"] == "Overloaded"
    assert answer["error"]["args"] == {"retry_after": 1}


def test_bytes_that_are_no_websocket_close_the_connection(connect) -> None:
    client = connect()
    client.sock.sendall(b"\xff" * 20)
    assert client.wait_closed() == 1002


def test_a_client_may_say_goodbye(door: World, connect) -> None:
    client = connect()
    client.send_event(CloseConnection(1000))
    assert client.wait_closed() == 1000


# ------------------------------------------------------------------ drain


def test_R26_a_connection_without_calls_is_closed_at_once(door: World, connect) -> None:
    client = connect()
    call(client)
    client.all_of(1)
    door.drain.begin(5)
    assert client.wait_closed() == 1001


def test_R26_running_calls_get_the_grace_and_then_a_typed_end(door: World, connect) -> None:
    client = connect()
    call(client, 1, "acme/silent")
    client.next()
    door.drain.begin(0.4)
    call(client, 2)
    refused, ended = client.next(), client.next()
    assert (refused["id"], refused["error"]["message"]) == (2, "the server is stopping")
    assert (ended["id"], ended["error"]["error_type"]) == (1, "ServerStopping")
    assert client.wait_closed() == 1001


def test_a_connection_leaves_nothing_behind(door: World, connect) -> None:
    client = connect()
    call(client, 1, "acme/silent")
    client.next()
    client.close()
    assert door.host.cancelled_event.wait(patience(1))
    gevent.sleep(0.05)
    assert len(door.application._streams) == 0
