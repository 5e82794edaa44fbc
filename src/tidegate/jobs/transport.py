"""kombu transport ``sqlq``: Celery's broker in one SQLite file, for one machine.

``sqlq:///<absolute path, percent-encoded>``. A message is lost by nobody's death: it stays in the
file until it is acknowledged, and belongs to a process only as long as that lives. Wake-ups come
by datagram, the polling interval is a safety net. Exchanges: direct, topic, fanout (so that ping
and revoke work). Priorities 0-9, a higher one first, as with AMQP.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from pathlib import Path
from queue import Empty
from typing import Any, ClassVar

from kombu.transport import virtual
from kombu.utils.uuid import uuid

from tidegate.jobs.queue_file import QueueFile
from tidegate.telemetry.logs import get_log

log = get_log("jobs")

#: Seconds that a consumer waits for messages when its process stops.
_LAST_WAIT = 0.02


class QoS(virtual.QoS):  # type: ignore[misc]
    """What a channel was handed and has not answered: rows of the file, not memory."""

    def ack(self, delivery_tag: str) -> None:
        """Called by consumers, from any greenlet, when a message was dealt with."""
        full = not self.can_consume()
        # The row first: a process that dies in between has the message once more, which the job's
        # row makes harmless. The other way round it would be lost.
        self.channel.file.done(delivery_tag)
        self._quick_ack(delivery_tag)
        if full:  # nobody rings for room that comes free
            self.channel.file.nudge()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or put it back to where it was."""
        if not requeue:
            self.ack(delivery_tag)
            return
        self._quick_ack(delivery_tag)
        self.channel.file.give_back([delivery_tag])

    def restore_unacked(self) -> list[Any]:
        """Put everything unanswered back. Called when the channel recovers."""
        self._flush()
        self.channel.file.give_back(self._delivered)
        self._delivered.clear()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same at the channel's end; kombu may call it more than once."""
        # kombu would restore at interpreter exit again, when the file may be closed.
        self._on_collect.cancel()
        self.restore_unacked()


class Channel(virtual.Channel):  # type: ignore[misc]
    """One channel. Knows which of its queues die with the process and which are not answered."""

    supports_fanout = True
    QoS = QoS

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.file: QueueFile = connection.file
        self._mine: set[str] = set()
        self._unread_limit: dict[str, float] = {}
        self._without_ack: set[str] = set()

    def prepare_queue_arguments(
        self, arguments: dict[str, Any], expires: float | None = None, **_: Any
    ) -> dict[str, Any]:
        """Called by kombu before a queue is declared: keep how long it may be unread."""
        return {**arguments, "x-expires": expires} if expires else arguments

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> None:
        """Called by kombu; remembers who never answers."""
        self._remember(queue, no_ack)
        # Before the consumer begins, or the clean-up could drop a reply queue between the two.
        self.file.read(queue)
        super().basic_consume(queue, no_ack, *args, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Called by kombu; a reply queue that nobody reads any more is collected after a while."""
        queue = self._tag_to_queue.get(consumer_tag, "")
        super().basic_cancel(consumer_tag)
        if queue in self._unread_limit:
            self.file.unread(queue, self._unread_limit[queue])

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Called by kombu: one message or None, without waiting."""
        self._remember(queue, no_ack)
        return super().basic_get(queue, no_ack, **kwargs)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any
    ) -> None:
        """Called by kombu; whoever bound the queue, it goes with its messages."""
        # `if_unused` is not looked at: who consumes stands in the memory of other processes.
        if not (if_empty and self._size(queue)):
            self.file.drop(queue)
            self.state.queue_bindings_delete(queue)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **_: Any,
    ) -> None:
        """Called by kombu."""
        exchange = exchange or "amq.direct"
        self.state.binding_delete(queue, exchange, routing_key)
        self.file.unbind(exchange, routing_key, queue)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """Called by kombu's exchanges: the bindings of every process, not only ours."""
        return self.file.bindings(exchange)

    def _remember(self, queue: str, no_ack: bool) -> None:
        (self._without_ack.add if no_ack else self._without_ack.discard)(queue)

    def _new_queue(
        self,
        queue: str,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if auto_delete:
            self._mine.add(queue)
            if arguments and "x-expires" in arguments:
                self._unread_limit[queue] = arguments["x-expires"]
                self.file.unread(queue, self._unread_limit[queue])

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        self.file.bind(exchange, routing_key or "", pattern or "", queue, mine=queue in self._mine)

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        properties = message["properties"]
        expiration = properties.get("expiration")
        self.file.put(
            queue,
            properties["delivery_tag"],
            json.dumps(message),
            rank=self._get_message_priority(message, reverse=True),
            # Wall time, since another process compares it, perhaps after a restart of the machine.
            expires_at=time.time() + int(expiration) / 1000 if expiration else None,
        )

    def _put_fanout(
        self, exchange: str, message: dict[str, Any], routing_key: str, **_: Any
    ) -> None:
        for _key, _pattern, queue in self.get_table(exchange):
            # Each copy is acknowledged by itself, and tags are unique in the file.
            properties = {**message["properties"], "delivery_tag": uuid()}
            self._put(queue, {**message, "properties": properties})

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        taken = self.file.take(queue, keep=queue not in self._without_ack)
        if taken is None:
            raise Empty
        message: dict[str, Any] = json.loads(taken.body)
        if taken.returned:
            message["properties"]["delivery_info"]["redelivered"] = True
        return message

    def _size(self, queue: str) -> int:
        return self.file.size(queue)

    def _purge(self, queue: str) -> int:
        return self.file.purge(queue)


class Transport(virtual.Transport):  # type: ignore[misc]
    """One connection of one process to the file. Made by kombu."""

    Channel = Channel
    driver_type = "sqlq"
    driver_name = "sqlq"
    default_port = None
    can_parse_url = False
    # Not for new messages, which ring: for those whose owner died without a word.
    polling_interval = 1.0
    connection_errors: ClassVar[tuple[type[Exception], ...]] = (
        # A file that stays locked is for kombu a broker that is away: it tries again, and nobody's
        # job is lost.
        *virtual.Transport.connection_errors,
        sqlite3.OperationalError,
    )
    implements = virtual.Transport.implements.extend(
        exchange_type=frozenset(["direct", "topic", "fanout"])
    )

    #: This process stops: nobody waits for messages any more.
    _stopping: ClassVar[bool] = False

    @classmethod
    def stop_waiting(cls) -> None:
        """Have consumers look up now, and from now on soon. Called when the worker stops.

        Celery asks whether to stop between two calls of :meth:`drain_events` only, and waits two
        seconds in each. Jobs are not touched: what was taken runs on or is given back.
        """
        cls._stopping = True
        QueueFile.nudge_all()

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """No host and no port: kombu would warn that it takes localhost."""
        return {"hostname": None, "port": None}

    @property
    def file(self) -> QueueFile:
        """The broker's file in this process; sqlite3.Error when it cannot be opened."""
        return QueueFile.at(Path("/", self.client.virtual_host or ""))

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Called by kombu's consumers: deliver one message, or socket.timeout."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                self.cycle.get(self._deliver, timeout=timeout)
                return
            except Empty:
                left = self.polling_interval
                if limit is not None:
                    left = min(left, limit - time.monotonic())
                if left <= 0:
                    raise socket.timeout from None  # noqa: UP041 - kombu's contract
                if self._stopping:
                    # not at once: a caller that does not know yet must not spin on the hub
                    limit = time.monotonic()
                    left = min(left, _LAST_WAIT)
                self.file.wait(left)

    def driver_version(self) -> str:
        """Shown by ``celery report``."""
        return sqlite3.sqlite_version
