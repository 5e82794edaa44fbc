"""The live socket: ``GET /plugin/{tenant_id}/live``, many calls over one WebSocket (RFC 6455).

| direction | message |
|-----------|---------|
| in        | ``{"id", "plugin": "author/name", "action": "tool/invoke", "data": {…}}``, and what a dispatch body may have besides |
| in        | ``{"id", "cancel": true}`` |
| out       | ``{"id", "chunk": …}``: one chunk of the plugin, its bytes untouched |
| out       | ``{"id", "error": {"error_type", "message", "args"}}``: the call ended so |
| out       | ``{"id", "end": true}``: the call ended well, or was cancelled |

``id`` is a text or a number of the client's choice, free again when its call ended; each call
ends with exactly one ``error`` or ``end``. One greenlet reads the socket (the request's own), one
runs each call; writes take turns. The handshake needs the same key as every other route.

Close codes: 1001 the server stops · 1002 no WebSocket · 1003 binary · 1007 no readable message ·
1008 an ``id`` that is in use · 1009 over TIDEGATE_MAX_BODY.
"""  # noqa: E501 - a table

from __future__ import annotations

from typing import Any, Final, final

import gevent
import msgspec
from gevent.event import Event
from gevent.lock import RLock
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    TextMessage,
)
from wsproto.events import Event as SocketEvent
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from tidegate.api.live_call import LiveCall, LiveMessage, Opener, decode_message
from tidegate.api.streaming import OpenStreams
from tidegate.clock import GIVE_WAY
from tidegate.doors.dify import Dispatcher
from tidegate.doors.routes import Request as HttpRequest
from tidegate.doors.routes import Takeover
from tidegate.errors import BadRequest, Overloaded, Stopping
from tidegate.runtime.drain import Drain
from tidegate.settings import Settings
from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log

log = get_log("api")

#: A silent client is pinged after this many seconds, and given up after twice as many.
PING_SECONDS: Final = 30.0
_READ: Final = 1 << 16
_LONGEST_ID: Final = 256
_LONGEST_REASON: Final = 120
_HEADERS: Final = (
    "HTTP_HOST",
    "HTTP_UPGRADE",
    "HTTP_CONNECTION",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_SEC_WEBSOCKET_VERSION",
)

_GOING_AWAY: Final = 1001
_PROTOCOL: Final = 1002
_BINARY: Final = 1003
_UNREADABLE: Final = 1007
_ID_IN_USE: Final = 1008
_TOO_BIG: Final = 1009


@final
class UpgradeNeeded(BadRequest):
    """The request is no WebSocket handshake of version 13."""

    status = 426


@final
class LiveDoor:
    """Makes live connections. One per process."""

    def __init__(
        self, settings: Settings, dispatcher: Dispatcher, streams: OpenStreams, drain: Drain
    ) -> None:
        self.settings = settings
        self.drain = drain
        self.opener = Opener(dispatcher, streams)

    def upgrade(self, request: HttpRequest) -> Takeover:
        """The handshake; 426 when it is none. What is sent to the client is sent by ``serve``."""
        protocol = WSConnection(ConnectionType.SERVER)
        environ = request.environ
        headers = [
            (name[5:].replace("_", "-").lower().encode(), environ[name].encode("latin-1"))
            for name in _HEADERS
            if name in environ
        ]
        try:
            protocol.initiate_upgrade_connection(headers, request.path.encode())
            greeting = protocol.send(AcceptConnection())
        except (RemoteProtocolError, LocalProtocolError) as error:
            raise UpgradeNeeded(f"send a WebSocket handshake of version 13: {error}") from None
        tenant = request.params["tenant_id"]

        def serve(sock: Any) -> None:
            sock.sendall(greeting)
            LiveConnection(self, sock, protocol, tenant).run()

        return Takeover(serve)


@final
class LiveConnection:
    """One client. ``run`` returns when it is gone; the caller closes the socket."""

    def __init__(self, door: LiveDoor, sock: Any, protocol: WSConnection, tenant: str) -> None:
        self.door = door
        self.tenant = tenant
        self._sock = sock
        self._protocol = protocol
        # wsproto's state and the socket are one resource: what two greenlets make of it must go
        # out in the order in which it was made.
        self._writing = RLock()
        self._calls: dict[bytes, LiveCall] = {}
        self._idle = Event()
        self._idle.set()
        self._parts: list[bytes] = []
        self._size = 0
        self._over = False
        self._greenlets: set[gevent.Greenlet] = set()

    def run(self) -> None:
        """Read until the client leaves, the protocol breaks or the server stops."""
        # The time for which one write may wait for a client that does not read, as for a stream
        # over HTTP.
        self._sock.settimeout(float(self.door.settings.plugin_max_execution_timeout))
        forget = self.door.drain.on_begin(self._draining)
        metrics.LIVE_CONNECTIONS.only.inc()
        try:
            while not self._over and self._receive():
                pass
        except OSError as error:
            log.debug("live client lost", error=str(error))
        finally:
            forget()
            metrics.LIVE_CONNECTIONS.only.dec()
            self._end_calls()

    # ------------------------------------------------------------------ reading

    def _receive(self) -> bool:
        data = self._read()
        if not data:
            return False
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._handle(event)
            gevent.sleep(GIVE_WAY)  # who sends faster than we read must not have us to himself
        except RemoteProtocolError as error:
            hint = error.event_hint
            self._close(hint.code if isinstance(hint, CloseConnection) else _PROTOCOL, str(error))
        return True

    def _read(self) -> bytes:
        """What the client sends next; b"" when it left or does not answer a ping."""
        for pinged in (False, True):
            data = self._read_within(PING_SECONDS)
            if data is not None:
                return data
            # While a write waits the client is silent because it does not read. A ping would queue
            # up behind that write and hold the one greenlet that reads.
            if not pinged and not self._writing.locked():
                self._write(Ping())
        log.info("live client does not answer", tenant=self.tenant)
        return b""

    def _read_within(self, seconds: float) -> bytes | None:
        timer = gevent.Timeout.start_new(seconds)
        try:
            data: bytes = self._sock.recv(_READ)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            return None
        finally:
            timer.close()
        return data

    def _handle(self, event: SocketEvent) -> None:
        if isinstance(event, TextMessage):
            self._text(event)
        elif isinstance(event, Ping):
            self._write(event.response())
        elif isinstance(event, CloseConnection):
            self._over = True
            self._write(event.response())
        elif isinstance(event, BytesMessage):
            self._close(_BINARY, "text messages only")

    def _text(self, event: Message[str]) -> None:
        data = event.data.encode()  # the limit is one of bytes, and a character may have four
        self._size += len(data)
        if self._size > self.door.settings.tidegate_max_body:
            self._close(_TOO_BIG, "the message is over TIDEGATE_MAX_BODY")
            return
        # Kept in pieces and joined once: adding to one text copies all of it for each fragment.
        self._parts.append(data)
        if event.message_finished:
            text, self._parts, self._size = b"".join(self._parts), [], 0
            self._message(text)

    def _message(self, text: bytes) -> None:
        try:
            message = decode_message(text)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._close(_UNREADABLE, f"no readable message: {error}")
            return
        key = bytes(message.id)
        # Echoed as the bytes that came, so that a number keeps its digits; null, lists and objects
        # are refused because they would be keys that nobody can match.
        if not key or len(key) > _LONGEST_ID or key[0] not in b'"-0123456789':
            self._close(_UNREADABLE, f"id must be a text or a number below {_LONGEST_ID} bytes")
        # A cancel for a call that is over is no error: the end and the cancel crossed on the wire.
        elif message.cancel:
            call = self._calls.get(key)
            if call is not None:
                call.cancel()
        elif key in self._calls:
            # The connection and not only the call: with two calls of one name nobody could tell
            # whose chunks are whose.
            self._close(_ID_IN_USE, "the id is in use")
        else:
            self._begin(key, message)

    def _begin(self, key: bytes, message: LiveMessage) -> None:
        if self.door.drain.draining:
            # As the end of this call, not of the connection: the calls that run keep it up to
            # their grace.
            self.tell(key, "error", Stopping("the server is stopping").as_json())
        elif len(self._calls) >= self.door.settings.tidegate_live_sessions:
            limit = self.door.settings.tidegate_live_sessions
            busy = Overloaded(f"{limit} calls run already (TIDEGATE_LIVE_SESSIONS)", retry_after=1)
            self.tell(key, "error", busy.as_json())
        else:
            opener = self.door.opener
            call = self._calls[key] = LiveCall(self, opener, self.tenant, key, message)
            self._idle.clear()
            greenlet = gevent.spawn(call.run)
            self._greenlets.add(greenlet)
            greenlet.link(self._greenlets.discard)

    # ------------------------------------------------------------------ writing

    def tell(self, key: bytes, name: str, value: bytes) -> None:
        """Send ``{"id": key, name: value}``. Called by calls and by the reader."""
        self.tell_all(key, name, [value])

    def tell_all(self, key: bytes, name: str, values: list[bytes]) -> None:
        """A message for each value, in one write."""
        head = b'{"id":' + key + b',"' + name.encode() + b'":'
        texts = [(head + value + b"}").decode("utf-8", "replace") for value in values]
        self._write(*(TextMessage(text) for text in texts))

    def ended(self, key: bytes) -> None:
        """A call is over and its id is free."""
        self._calls.pop(key, None)
        if not self._calls:
            self._idle.set()

    def _write(self, *events: SocketEvent) -> None:
        with self._writing:
            try:
                data = b"".join(map(self._protocol.send, events))
            except LocalProtocolError:
                return  # closed meanwhile: nobody may be told anything any more
            self._sock.sendall(data)

    def _close(self, code: int, reason: str) -> None:
        self._over = True
        log.info("live connection closed", code=code, reason=reason[:300])
        short = reason.encode()[:_LONGEST_REASON].decode("utf-8", "ignore")
        self._write(CloseConnection(code, short))

    # ------------------------------------------------------------------ ending

    def _draining(self, grace: float) -> None:
        greenlet = gevent.spawn(self._go_away, grace)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)

    def _go_away(self, grace: float) -> None:
        """Say goodbye when the last call ended, at the latest when the grace is over."""
        self._idle.wait(grace)
        try:
            self._close(_GOING_AWAY, "the server is stopping")
            self._sock.shutdown(2)  # wakes the reader
        except OSError as error:
            log.debug("live client lost", error=str(error))

    def _end_calls(self) -> None:
        for call in list(self._calls.values()):
            call.leave()
        # Bounded: a call that does not end must not hold the greenlet of the connection, which
        # gunicorn counts.
        gevent.killall(list(self._greenlets), timeout=1.0)
