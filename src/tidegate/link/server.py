"""The host's end of the link.

    connection --(reader greenlet)--> OPEN, CANCEL --> Handler.opened / ServerCall.on_cancel
    connection <--(outbox, no greenlet)-- CHUNK, ERROR, END <-- ServerCall, flush()

A plugin's reader appends chunks to ``call.buffer`` of many calls and then calls :func:`flush`
once: one frame per call, one ``sendmsg`` per connection and wake-up.

While a connection is full but moving, :func:`wait_writable` lets the plugin's reader pause, which
holds the plugin back. A connection that does not move at all (its process is stopped) is not
waited for: its calls pile up to their budget and end one by one, and nobody else notices.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol, final

import gevent
import msgspec
from gevent import socket as gsocket

from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import SlowConsumer, StartRefused
from tidegate.link import handshake
from tidegate.link.outbox import Outbox
from tidegate.telemetry.logs import get_log
from tidegate.wire.frames import FRAME_LIMIT, HEADER, MORE, FrameError, FrameReader, Kind, encode
from tidegate.wire.heads import HostHead, PluginHead, decode_open
from tidegate.wire.pieces import Pieces

log = get_log("link")

_READ: Final = 1 << 18
#: Bytes waiting on a connection from which on the plugin's reader is held back.
CONGESTED: Final = 4 << 20
#: Seconds without progress after which a connection is not waited for any more.
STALLED: Final = 0.25
_CHUNK: Final = int(Kind.CHUNK)
_pack = HEADER.pack


class Handler(Protocol):
    """What the server hands calls to. Implemented by ``hosts``."""

    def opened(self, call: ServerCall) -> None:
        """A peer opened ``call``. Runs in the connection's reader greenlet: must not wait."""


@final
class ServerCall:
    """One call that a peer opened. It ends exactly once; anything after that is dropped.

    The handler sets ``on_cancel``; it is called at most once, from the connection's reader, when
    the caller gave up or its connection is gone - never after the call was ended from this side.
    ``on_over`` is called once when the call is over, whoever ended it; it must not wait.
    """

    __slots__ = (
        "_backlog", "_connection", "_ended", "buffer", "closed", "closing", "head", "number",
        "on_cancel", "on_over", "payload",
    )  # fmt: skip

    def __init__(
        self,
        connection: _Connection,
        number: int,
        head: PluginHead | HostHead,
        payload: bytes | Pieces,
    ) -> None:
        self._connection = connection
        self._ended = False
        self._backlog = 0
        self.number = number
        self.head = head
        self.payload = payload
        self.buffer: list[bytes] = []
        self.closing: bytes | None = None
        self.closed = False
        self.on_cancel: Callable[[], None] | None = None
        self.on_over: Callable[[ServerCall], None] | None = None

    def send(self, chunk: bytes) -> None:
        """One chunk (JSON text without a newline), flushed at once."""
        if not self.closed:
            self.buffer.append(chunk)
            flush((self,))

    def conclude(self, error: bytes = b"") -> None:
        """Mark the end without sending: the next :func:`flush` of this call sends ERROR and END.

        For the plugin's reader, which ends many calls in one wake-up. ``error`` is JSON
        ``{error_type, message, args}``; empty for a normal end. The first one counts.
        """
        if not self.closed:
            self.closed = True
            self.closing = error
            if self.on_over is not None:
                self.on_over(self)

    def finish(self) -> None:
        """The normal end: what is buffered, then END."""
        self.conclude()
        flush((self,))

    def fail(self, error: bytes) -> None:
        """The end with an error: what is buffered, ERROR, END."""
        self.conclude(error)
        flush((self,))

    def _cancelled(self) -> None:
        self._ended = True
        if not self.closed:
            self.closed = True
            self.buffer = []
            if self.on_cancel is not None:
                self.on_cancel()
            if self.on_over is not None:
                self.on_over(self)

    def _frames(self) -> list[bytes | memoryview]:
        """Everything that this call has to say now, as frames."""
        if self._ended:
            self.buffer = []
            return []
        parts: list[bytes | memoryview] = []
        if self.buffer:
            body = self.buffer[0] if len(self.buffer) == 1 else b"\n".join(self.buffer)
            self.buffer = []
            if len(body) <= FRAME_LIMIT:
                parts = [_pack(len(body), self.number, _CHUNK, 0, 0), body]
            else:
                parts += encode(Kind.CHUNK, self.number, body)
        if self.closing is not None:
            if self.closing:
                parts += encode(Kind.ERROR, self.number, self.closing)
            parts.append(_pack(0, self.number, Kind.END, 0, 0))
            self._ended = True
        return parts

    def _over_budget(self, error: bytes) -> list[bytes | memoryview]:
        self.closed = True
        self.buffer = []
        self.closing = error
        parts = self._frames()
        if self.on_cancel is not None:
            self.on_cancel()
        if self.on_over is not None:
            self.on_over(self)
        return parts


def flush(calls: Iterable[ServerCall]) -> None:
    """Send what these calls have to say: one write per connection. Each call may come twice."""
    outs: dict[_Connection, list[bytes | memoryview]] = {}
    for call in calls:
        connection = call._connection
        parts = call._frames()
        if not parts:
            continue
        if connection.outbox.pending:
            parts = connection.charge(call, parts)
        if call._ended:
            connection.calls.pop(call.number, None)
        known = outs.get(connection)
        if known is None:
            outs[connection] = parts
        else:
            known += parts
    for connection, parts in outs.items():
        connection.outbox.write(parts)


def wait_writable(calls: Iterable[ServerCall], seconds: float = STALLED) -> None:
    """Pause while connections of these calls are full but moving, ``seconds`` at most.

    Called by a plugin's reader after :func:`flush`: the pause holds the plugin back instead of
    piling up what a busy api process cannot take yet.
    """
    for connection in {call._connection for call in calls}:
        outbox = connection.outbox
        if outbox.pending < CONGESTED:
            continue
        if SYSTEM_CLOCK.monotonic() - outbox.progressed_at < STALLED:
            outbox.wait_drained(seconds)


class _Connection:
    """One peer: its socket, its calls, its outbox."""

    def __init__(self, server: LinkServer, sock: gsocket.socket) -> None:
        self._server = server
        self._sock = sock
        self._more: dict[int, list[bytes]] = {}
        self._indebted: set[ServerCall] = set()
        self.calls: dict[int, ServerCall] = {}
        self.outbox = Outbox(sock, self._broken)
        self.outbox.on_drained = self._settle

    def run(self) -> None:
        """Read frames until the peer leaves. The connection's reader greenlet."""
        reader = FrameReader()
        try:
            while data := self._sock.recv(_READ):
                for number, kind, flags, body in reader.feed(data):
                    self._take(number, kind, flags, body)
        except FrameError as error:
            log.error("link peer sent no frames; connection closed", error=str(error))
        except OSError as error:
            log.debug("link connection lost", error=str(error))
        finally:
            self.close()

    def close(self) -> None:
        """Cancel every call of this peer and forget it. Idempotent."""
        self.outbox.close()
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call._cancelled()
        self._sock.close()
        self._server.forget(self)

    def charge(self, call: ServerCall, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Count what waits for a full connection against the call's budget."""
        # A peer that keeps up but is never done has no moment at which all debts are settled; no
        # call owes more than what waits in all.
        call._backlog = min(call._backlog, self.outbox.pending) + sum(map(len, parts))
        self._indebted.add(call)
        if call._backlog <= self._server.call_budget:
            return parts
        if call._ended:
            return parts
        log.warning("call ended: its connection does not take its output", bytes=call._backlog)
        error = SlowConsumer(
            f"the connection to the caller did not take {call._backlog} bytes in time",
            bytes=call._backlog,
        )
        return call._over_budget(error.as_json())

    def _settle(self) -> None:
        for call in self._indebted:
            call._backlog = 0
        self._indebted.clear()

    def _broken(self) -> None:
        # The reader greenlet notices as well; shutting down wakes it at once.
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("link socket already gone", error=str(error))

    def _take(self, number: int, kind: int, flags: int, body: bytes) -> None:
        if kind == Kind.OPEN:
            if flags & MORE:
                self._more.setdefault(number, []).append(body)
                return
            pieces = self._more.pop(number, None) if self._more else None
            self._open(number, body if pieces is None else (*pieces, body))
        elif kind == Kind.CANCEL:
            self._more.pop(number, None)
            call = self.calls.pop(number, None)
            if call is None:
                self._server.late_frames += 1  # END and CANCEL crossed
            else:
                call._cancelled()
        else:
            raise FrameError(f"a client does not send kind {kind}")

    def _open(self, number: int, body: bytes | Pieces) -> None:
        try:
            head, payload = decode_open(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(f"head of call {number} cannot be read: {error}") from None
        if number in self.calls:
            raise FrameError(f"call number {number} was used twice")
        call = self.calls[number] = ServerCall(self, number, head, payload)
        self._server.handler.opened(call)


@final
class LinkServer:
    """Listens for api and worker processes. Made and started by ``host_entrypoint``."""

    def __init__(
        self,
        handler: Handler,
        *,
        key: bytes,
        path: Path,
        tcp: str = "",
        call_budget: int = 8 << 20,
    ) -> None:
        self.handler = handler
        self.call_budget = call_budget
        self.late_frames = 0
        self._key = key
        self._path = path
        self._tcp = tcp
        self._listeners: list[gsocket.socket] = []
        self._greenlets: set[gevent.Greenlet] = set()
        self._connections: set[_Connection] = set()

    def start(self) -> None:
        """Bind and accept. StartRefused with one line when an address cannot be had."""
        self._listeners.append(self._bind_unix())
        try:
            if self._tcp:
                self._listeners.append(self._bind_tcp())
        except StartRefused:
            self.stop()
            raise
        for listener in self._listeners:
            self._spawn(self._accept, listener)

    def stop(self) -> None:
        """Close the listeners and every connection (their calls are cancelled)."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.close()
        gevent.killall(list(self._greenlets), timeout=2)
        self._path.unlink(missing_ok=True)

    def notify(self, body: bytes) -> None:
        """Tell every connected peer something (a NOTICE frame)."""
        parts = encode(Kind.NOTICE, 0, body)
        for connection in list(self._connections):
            connection.outbox.write(list(parts))

    @property
    def connections(self) -> int:
        """Peers that are connected now."""
        return len(self._connections)

    @property
    def tcp_port(self) -> int:
        """Port of the TCP listener (for port 0 in tests)."""
        return int(self._listeners[-1].getsockname()[1])

    def forget(self, connection: _Connection) -> None:
        """A connection ended. Called by it."""
        self._connections.discard(connection)

    def _spawn(self, function: Callable[..., None], *arguments: object) -> None:
        greenlet = gevent.spawn(function, *arguments)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)

    def _bind_unix(self) -> gsocket.socket:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path.exists() and _answers(self._path):
            raise StartRefused(
                f"a host already serves {self._path}: stop it, or set another TIDEGATE_HOME"
            )
        self._path.unlink(missing_ok=True)
        listener = gsocket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        except OSError as error:
            listener.close()
            raise StartRefused(f"cannot listen on {self._path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        listener.listen(256)
        return listener

    def _bind_tcp(self) -> gsocket.socket:
        host, _, port = self._tcp.rpartition(":")
        if not port.isdigit():
            raise StartRefused(f"TIDEGATE_LINK_TCP takes host:port, not {self._tcp!r}")
        listener = gsocket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host.strip("[]") or "127.0.0.1", int(port)))
        except OSError as error:
            listener.close()
            raise StartRefused(f"cannot listen on {self._tcp}: {error.strerror}") from error
        listener.listen(256)
        return listener

    def _accept(self, listener: gsocket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if listener not in self._listeners or error.errno == errno.EBADF:
                    return
                # Out of descriptors: wait until some come free, then go on accepting.
                log.error("link cannot accept", error=str(error))
                gevent.sleep(0.5)
                continue
            self._spawn(self._serve, sock)

    def _serve(self, sock: gsocket.socket) -> None:
        try:
            handshake.widen(sock)
            handshake.accept(sock, self._key)
        except (OSError, TimeoutError) as error:
            log.warning("link connection refused", error=str(error))
            sock.close()
            return
        connection = _Connection(self, sock)
        self._connections.add(connection)
        connection.run()


def _answers(path: Path) -> bool:
    """Whether somebody accepts connections on this socket, or it was left by a dead host."""
    probe = gsocket.socket(socket.AF_UNIX)
    try:
        probe.connect(str(path))
    except OSError:
        return False
    finally:
        probe.close()
    return True
