"""The end of the link in api and worker processes.

One connection per process to a host, made when it is first needed and again when it was lost.
One greenlet reads it and hands what comes to each call's :class:`Sink`; then it lets the woken
consumers run before it reads on, so that what it took is small.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, final

import gevent
from gevent import socket as gsocket
from gevent.event import Event
from gevent.lock import RLock

from tidegate.clock import GIVE_WAY
from tidegate.errors import CallFailed, HostLost
from tidegate.link import handshake
from tidegate.link.outbox import Outbox
from tidegate.telemetry.logs import get_log
from tidegate.wire.frames import MORE, FrameError, FrameReader, Kind, encode
from tidegate.wire.heads import HostHead, PluginHead, encode_open
from tidegate.wire.pieces import Pieces

log = get_log("link")

_READ: Final = 1 << 18
_LAST_NUMBER: Final = 0xFFFFFFFF
_CHUNK: Final = int(Kind.CHUNK)


class Sink(Protocol):
    """Where a call's frames go. Called by the link's reader: all calls wait while one does."""

    def push(self, body: bytes) -> None:
        """One or more chunks, joined by newlines."""

    def fail(self, error: bytes) -> None:
        """JSON ``{error_type, message, args}``; ``finish`` follows."""

    def finish(self) -> None:
        """The end; nothing follows."""


@final
class ClientCall:
    """A call that this process opened. ``cancel`` is the only thing to do with it."""

    __slots__ = ("_connection", "_number")

    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    def cancel(self) -> None:
        """Tell the host that nobody waits any more. Idempotent; nothing after an END."""
        self._connection.cancel(self._number)


class _Connection:
    """One socket to the host. Its numbers are never used twice."""

    def __init__(self, owner: LinkClient, sock: gsocket.socket) -> None:
        self._owner = owner
        self._sock = sock
        self._last = 0
        self._more: dict[int, list[bytes]] = {}
        self.sinks: dict[int, Sink] = {}
        self.alive = True
        self.outbox = Outbox(sock, self._broken)
        self._queued: list[bytes | memoryview] = []

    @property
    def exhausted(self) -> bool:
        """No number is left: the next call needs another connection."""
        return self._last >= self._owner.last_number

    def open(self, body: bytes | Pieces, sink: Sink) -> ClientCall:
        self._last = number = self._last + 1
        # Before it is sent: the answer may come within this turn.
        self.sinks[number] = sink
        self._queue(encode(Kind.OPEN, number, body))
        return ClientCall(self, number)

    def cancel(self, number: int) -> None:
        # Only what is open: the host counts a CANCEL after its END as late.
        if self.sinks.pop(number, None) is not None:
            self._more.pop(number, None)
            self._queue(encode(Kind.CANCEL, number))

    def _queue(self, parts: list[bytes | memoryview]) -> None:
        """Send at the end of this turn of the event loop, with what others say in it.

        Under load many calls begin in one turn: one system call, and the host wakes once.
        """
        if not self._queued:
            gevent.get_hub().loop.run_callback(self._flush)
        self._queued += parts

    def _flush(self) -> None:
        parts, self._queued = self._queued, []
        self.outbox.write(parts)

    def run(self) -> None:
        """The reader greenlet."""
        reader = FrameReader()
        try:
            while data := self._sock.recv(_READ):
                for number, kind, flags, body in reader.feed(data):
                    try:
                        if kind == _CHUNK and not flags and not self._more:
                            sink = self.sinks.get(number)
                            if sink is not None:
                                sink.push(body)
                            else:
                                self._owner.late_frames += 1
                        else:
                            self._take(number, kind, flags, body)
                    except FrameError:
                        raise
                    except Exception:
                        # A defect of ours on one call's frame must not cost all that share the
                        # connection.
                        self._misunderstood(number)
                # The consumers that were woken run before more is taken; and in a flood, sockets
                # and timers are looked at as well.
                gevent.sleep(GIVE_WAY if len(data) == _READ else 0)
        except (OSError, FrameError) as error:
            log.warning("link to the host lost", error=str(error))
        finally:
            self.close("the host ended, or the link to it broke")

    def close(self, reason: str) -> None:
        """End every call with HostLost. Idempotent."""
        if not self.alive:
            return
        self.alive = False
        self.outbox.close()
        self._sock.close()
        error = HostLost(f"host lost: {reason}").as_json()
        sinks, self.sinks = self.sinks, {}
        for sink in sinks.values():
            _end(sink, error)
        self._owner.lost(self)

    def _broken(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("link socket already gone", error=str(error))

    def _misunderstood(self, number: int) -> None:
        log.exception("a frame of the host was not understood; its call ends", call=number)
        sink = self.sinks.get(number)
        if sink is not None:
            self.cancel(number)
            told = CallFailed("what the host sent for this call was not understood")
            _end(sink, told.as_json())

    def _take(self, number: int, kind: int, flags: int, body: bytes) -> None:
        if kind == Kind.NOTICE:
            self._owner.on_notice(body)
            return
        sink = self.sinks.get(number)
        if sink is None:
            self._owner.late_frames += 1
            return
        if flags & MORE:
            self._more.setdefault(number, []).append(body)
            return
        if number in self._more:
            body = b"".join([*self._more.pop(number), body])
        if kind == Kind.CHUNK:
            sink.push(body)
        elif kind == Kind.ERROR:
            sink.fail(body)
        elif kind == Kind.END:
            # Told first: one that fails in it is still known, and gets an end of its own.
            sink.finish()
            self.sinks.pop(number, None)
        else:
            raise FrameError(f"a server does not send kind {kind}")


def _end(sink: Sink, error: bytes) -> None:
    try:
        sink.fail(error)
        sink.finish()
    except Exception:
        # A defect of ours at one end must not leave the others without theirs.
        log.exception("the end of a call was not understood")


@final
class LinkClient:
    """Opens calls to one host. One per process, used by ``calls``; safe for many greenlets.

    ``address`` is the path of a unix socket, or ``host:port``.
    """

    def __init__(
        self,
        address: Path | str,
        *,
        key: bytes,
        on_notice: Callable[[bytes], None],
        last_number: int = _LAST_NUMBER,
    ) -> None:
        self.on_notice = on_notice
        self.last_number = last_number
        self.late_frames = 0
        self._address = address
        self._key = key
        self._connection: _Connection | None = None
        self._connecting = RLock()
        self._readers: set[gevent.Greenlet] = set()
        self._closed = False
        self._lost = Event()

    @property
    def connected(self) -> bool:
        """Whether a connection stands now."""
        return self._connection is not None and self._connection.alive

    def connect(self) -> None:
        """Make sure that a connection stands; HostLost when the host cannot be reached."""
        self._current()

    def open(self, head: PluginHead | HostHead, payload: bytes | Pieces, sink: Sink) -> ClientCall:
        """Open a call whose frames go to ``sink``. HostLost when there is no host."""
        return self._current().open(encode_open(head, payload), sink)

    def close(self) -> None:
        """Close the connection; its calls end with HostLost. Idempotent."""
        self._closed = True
        if self._connection is not None:
            self._connection.close("this process stops")
        gevent.killall(list(self._readers), timeout=2)

    def lost(self, connection: _Connection) -> None:
        """A connection ended. Called by it."""
        if self._connection is connection:
            self._connection = None
        self._lost.set()

    def wait_lost(self) -> None:
        """Wait until the connection that stands now is gone (at once when there is none)."""
        self._lost.clear()
        if self.connected:
            self._lost.wait()

    def _current(self) -> _Connection:
        connection = self._connection
        if connection is not None and connection.alive and not connection.exhausted:
            return connection
        # One dials, the others wait for it and look again: a host that comes back must not be
        # met by a connection for each call.
        with self._connecting:
            connection = self._connection
            if connection is None or not connection.alive or connection.exhausted:
                connection = self._connection = self._connect()
            return connection

    def _connect(self) -> _Connection:
        self._require_open()
        try:
            sock = self._dial()
        except (OSError, TimeoutError) as error:
            raise HostLost(
                f"no host answers at {self._address}: {error}; is `tidegate host` running?"
            ) from error
        try:
            self._require_open()
        except HostLost:  # closed while this dialled: nobody would close what it has got
            sock.close()
            raise
        connection = _Connection(self, sock)
        greenlet = gevent.spawn(connection.run)
        self._readers.add(greenlet)
        greenlet.link(self._readers.discard)
        return connection

    def _require_open(self) -> None:
        if self._closed:
            raise HostLost("this process stops")

    def _dial(self) -> gsocket.socket:
        if isinstance(self._address, Path):
            sock = gsocket.socket(socket.AF_UNIX)
            target: object = str(self._address)
        else:
            host, _, port = self._address.rpartition(":")
            sock = gsocket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            target = (host.strip("[]"), int(port))
        try:
            handshake.widen(sock)
            sock.settimeout(handshake.LIMIT)
            sock.connect(target)
            handshake.connect(sock, self._key)
        except BaseException:
            sock.close()
            raise
        return sock
