"""One api or worker process that is connected to the host: its socket, its calls, its outbox.

connection --(reader greenlet)--> OPEN, CANCEL --> Handler.opened / ServerCall.on_cancel
connection <--(outbox, no greenlet)-- CHUNK, ERROR, END <-- ServerCall, flush()
"""

from __future__ import annotations

import socket
from typing import Final, Protocol, final

import gevent
import msgspec
from gevent import socket as gsocket

from tidegate.clock import GIVE_WAY
from tidegate.errors import CallFailed, SlowConsumer
from tidegate.link.outbox import Outbox
from tidegate.link.server_call import ServerCall
from tidegate.telemetry.logs import get_log
from tidegate.wire.frames import MORE, FrameError, FrameReader, Kind
from tidegate.wire.heads import decode_open
from tidegate.wire.pieces import Pieces

log = get_log("link")

_READ: Final = 1 << 18
#: Bytes that wait for one connection from which on its calls share them. A process that is stopped
#: under a thousand streams would else hold a thousand budgets of the host's memory.
MOST_PENDING: Final = 256 << 20


class Handler(Protocol):
    """What the server hands calls to. Implemented by ``hosts``."""

    def opened(self, call: ServerCall) -> None:
        """A peer opened ``call``. Runs in the connection's reader greenlet: must not wait."""


class Server(Protocol):
    """What a peer needs of the server that accepted it."""

    handler: Handler
    call_budget: int
    late_frames: int

    def forget(self, peer: Peer) -> None:
        """It is gone."""


@final
class Peer:
    """A connected process. Made by the server, whose greenlet runs it until it leaves."""

    def __init__(self, server: Server, sock: gsocket.socket) -> None:
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
                if len(data) == _READ:
                    gevent.sleep(GIVE_WAY)  # a request of 200 MB must not have the host to itself
        except FrameError as error:
            log.error("link peer sent no frames; connection closed", error=str(error))
        except OSError as error:
            log.debug("link connection lost", error=str(error))
        finally:
            self.close()

    def close(self) -> None:
        """Cancel every call of this peer and forget it. Idempotent."""
        # The outbox first: what the ends of its calls have to say goes nowhere any more.
        self.outbox.close()
        calls, self.calls = self.calls, {}
        for call in calls.values():
            self._cancel(call)
        self._sock.close()
        self._server.forget(self)

    def charge(self, call: ServerCall, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Count what waits for a full connection against the call's budget (``Carrier``)."""
        # A peer that keeps up but is never done has no moment at which all debts are settled; no
        # call owes more than what waits in all.
        call.backlog = min(call.backlog, self.outbox.pending) + sum(map(len, parts))
        self._indebted.add(call)
        budget = self._server.call_budget
        if self.outbox.pending > MOST_PENDING:
            budget = min(budget, MOST_PENDING // len(self._indebted))
        # One that has ended says its last: an error in its place would be no shorter.
        if call.backlog <= budget or call.ended:
            return parts
        log.warning("call ended: its connection does not take its output", bytes=call.backlog)
        error = SlowConsumer(
            f"the connection to the caller did not take {call.backlog} bytes in time",
            bytes=call.backlog,
        )
        return call.over_budget(error.as_json())

    def _settle(self) -> None:
        for call in self._indebted:
            call.backlog = 0
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
                self._cancel(call)
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
        try:
            self._server.handler.opened(call)
        except Exception:
            # A defect of ours on one call must not cost all that share the connection.
            log.exception("a call could not be begun", plugin=getattr(head, "plugin", ""))
            call.fail(CallFailed("the host could not begin this call; its log says why").as_json())

    def _cancel(self, call: ServerCall) -> None:
        try:
            call.cancelled()
        except Exception:
            log.exception("the end of a call was not understood", call=call.number)
