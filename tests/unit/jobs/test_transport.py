"""The transport as kombu's users see it: exchanges, priorities, acknowledgements."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.pidbox import Mailbox

from tests.patience import patience
from tidegate.jobs.broker import prepare_transport
from tidegate.jobs.queue_file import QueueFile


@pytest.fixture
def url(path: Path) -> str:
    url = f"sqlq:///{quote(str(path))}"
    prepare_transport(url)
    return url


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Connection(url) as connection:
        yield connection


def send(connection: Connection, queue: Queue, *bodies: Any, **options: Any) -> None:
    with connection.channel() as channel:
        producer = Producer(channel)
        for body in bodies:
            producer.publish(body, exchange="", routing_key=queue.name, declare=[queue], **options)


def receive(connection: Connection, queue: Queue, count: int, *, ack: bool = True) -> list[Any]:
    got: list[Any] = []

    def take(body: Any, message: Any) -> None:
        got.append(body)
        if ack:
            message.ack()

    with connection.channel() as channel, Consumer(channel, [queue], callbacks=[take]):
        while len(got) < count:
            connection.drain_events(timeout=5)
    return got


def test_what_is_sent_is_received(connection: Connection) -> None:
    queue = Queue("work")
    send(connection, queue, {"a": 1}, "two")
    assert receive(connection, queue, 2) == [{"a": 1}, "two"]


def test_waiting_ends_with_the_time_out(connection: Connection) -> None:
    with connection.channel() as channel, Consumer(channel, [Queue("work")]):
        began = time.monotonic()
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.1)
        assert time.monotonic() - began < patience(1)


def test_a_waiting_consumer_gets_a_message_without_polling(url: str) -> None:
    queue = Queue("work")
    with Connection(url) as receiver, Connection(url) as sender:
        receiver.transport.polling_interval = 30
        waiting = gevent.spawn(receive, receiver, queue, 1)
        gevent.sleep(0.05)
        send(sender, queue, "now")
        assert waiting.get(timeout=5) == ["now"]


def test_a_higher_priority_goes_first(connection: Connection) -> None:
    queue = Queue("work")
    send(connection, queue, "low", priority=1)
    send(connection, queue, "high", priority=8)
    send(connection, queue, "low too", priority=1)
    assert receive(connection, queue, 3) == ["high", "low", "low too"]


def test_a_message_that_was_not_acknowledged_comes_again_at_its_place(
    connection: Connection,
) -> None:
    queue = Queue("work")
    send(connection, queue, 1, 2, 3)
    assert receive(connection, queue, 2, ack=False) == [1, 2]
    assert receive(connection, queue, 3) == [1, 2, 3]


def test_a_requeued_message_is_marked_and_a_rejected_one_goes(connection: Connection) -> None:
    queue = Queue("work")
    send(connection, queue, "again", "bad")
    with connection.channel() as channel:
        first = queue(channel).get()
        second = queue(channel).get()
        assert not first.delivery_info.get("redelivered")
        second.reject()
        first.requeue()
        again = queue(channel).get()
        assert again.payload == "again"
        assert again.delivery_info["redelivered"]
        again.ack()
        assert queue(channel).get() is None


def test_room_that_comes_free_wakes_a_consumer_that_was_full(url: str) -> None:
    queue = Queue("work")
    got: list[Any] = []
    with Connection(url) as connection, connection.channel() as channel:
        connection.transport.polling_interval = 30
        send(connection, queue, 1, 2)
        consumer = Consumer(channel, [queue], callbacks=[lambda _, message: got.append(message)])
        consumer.qos(prefetch_count=1)
        with consumer:
            connection.drain_events(timeout=5)
            waiting = gevent.spawn(connection.drain_events, timeout=20)
            gevent.sleep(0.05)
            assert len(got) == 1
            got[0].ack()
            waiting.get(timeout=5)
            assert [message.payload for message in got] == [1, 2]
            got[1].ack()


def test_fanout_reaches_every_bound_queue_of_every_connection(url: str) -> None:
    exchange = Exchange("news", type="fanout")
    queues = [Queue(f"reader-{number}", exchange, auto_delete=True) for number in range(2)]
    with Connection(url) as first, Connection(url) as second, Connection(url) as sender:
        channels = [first.channel(), second.channel()]
        bound = [queue(channel) for queue, channel in zip(queues, channels, strict=True)]
        for queue in bound:
            queue.declare()
        with sender.channel() as channel:
            Producer(channel, exchange).publish("hear", declare=[exchange])
        assert [queue.get(no_ack=True).payload for queue in bound] == ["hear", "hear"]


def test_topic_exchanges_match_patterns(connection: Connection) -> None:
    exchange = Exchange("events", type="topic")
    with connection.channel() as channel:
        queue = Queue("starts", exchange, routing_key="plugin.#")(channel)
        queue.declare()
        producer = Producer(channel, exchange)
        producer.publish("yes", routing_key="plugin.start.hello")
        producer.publish("no", routing_key="task.start")
        assert queue.get(no_ack=True).payload == "yes"
        assert queue.get(no_ack=True) is None


def test_unbinding_and_deleting_a_queue_take_its_messages_away(connection: Connection) -> None:
    exchange = Exchange("direct-one", type="direct")
    with connection.channel() as channel:
        queue = Queue("q", exchange, routing_key="k")(channel)
        queue.declare()
        producer = Producer(channel, exchange)
        queue.unbind_from(exchange, routing_key="k")
        producer.publish("lost", routing_key="k")
        assert queue.get() is None
        queue.declare()
        producer.publish("kept", routing_key="k")
        queue.delete(if_empty=True)
        assert channel.file.size("q") == 1
        queue.delete()
        assert channel.file.size("q") == 0


def test_purge_says_how_many_went(connection: Connection) -> None:
    queue = Queue("work")
    send(connection, queue, 1, 2, 3)
    with connection.channel() as channel:
        assert queue(channel).purge() == 3
        assert queue(channel).queue_declare().message_count == 0


def test_a_message_with_an_expiration_is_dropped_by_the_broker(connection: Connection) -> None:
    queue = Queue("work")
    send(connection, queue, "stale", expiration=0.01)
    time.sleep(0.02)
    send(connection, queue, "fresh", expiration=60)
    assert receive(connection, queue, 1) == ["fresh"]


def test_a_reply_queue_that_nobody_reads_is_collected(url: str, file: QueueFile) -> None:
    with Connection(url) as connection:
        mailbox = Mailbox("house", type="fanout", reply_queue_expires=0.01)(connection)
        with connection.channel() as channel:
            mailbox.reply_queue(channel).declare()  # as a caller that is killed before it collects
            assert file.bindings(mailbox.reply_exchange.name)
            time.sleep(0.02)
            file._next_look = 0.0
            send(connection, Queue("work"), 1)
            assert file.bindings(mailbox.reply_exchange.name) == []


def test_an_answered_call_leaves_no_reply_queue(url: str, file: QueueFile) -> None:
    with Connection(url) as asking, Connection(url) as answering:
        mailbox = Mailbox("house", type="fanout")
        handlers = {"hello": lambda _state: 7}
        node = mailbox(answering).Node("one", channel=answering.channel(), handlers=handlers)
        node.listen().consume()
        asked = gevent.spawn(mailbox(asking).multi_call, "hello", timeout=5, limit=1)
        answering.drain_events(timeout=5)
        assert asked.get(timeout=5) == [{"one": 7}]
        assert file.bindings(mailbox.reply_exchange.name) == []


@pytest.mark.parametrize("name", ["with space", "50%;#?é", "a" * 200])
def test_any_path_is_a_broker(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    url = f"sqlq:///{quote(str(folder / 'broker.db'))}"
    prepare_transport(url)
    with Connection(url) as connection:
        send(connection, Queue("work"), "here")
        assert receive(connection, Queue("work"), 1) == ["here"]
    assert (folder / "broker.db").exists()


def test_a_file_that_cannot_be_opened_is_a_connection_error(tmp_path: Path) -> None:
    (tmp_path / "broker.db").mkdir()
    url = f"sqlq:///{quote(str(tmp_path / 'broker.db'))}"
    prepare_transport(url)
    with Connection(url) as connection, pytest.raises(connection.connection_errors):
        connection.connect()
