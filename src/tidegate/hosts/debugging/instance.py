"""A debugged plugin as an ``instance.Instance``: what a local one has pipes for has a socket here.

It is ready when it exists and ends with its connection. Nothing is asked of its heartbeats: a
developer who stands at a breakpoint for ten minutes loses neither connection nor registration;
calls that wait for him end at their own deadlines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, final

import gevent
from gevent import socket
from gevent.event import Event

from tidegate.backcalls import Caller, Session, Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.deadline import Deadline
from tidegate.errors import CallFailed, ConnectionClosed, Overloaded
from tidegate.hosts.admission import Admission
from tidegate.hosts.deadlines import Deadlines
from tidegate.hosts.instance import State, check_transition
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.reading import read_all
from tidegate.hosts.talk import Talk
from tidegate.hosts.writer import Writer
from tidegate.link import ServerCall, flush, wait_writable
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead
from tidegate.wire.sessions import Port, Sessions

log = get_log("hosts")

_CLOSED: Final = "Connection closed unexpectedly"


@final
class DebugInstance:
    """The calls of one registered connection. Made by it; :meth:`run` is its reader's body."""

    def __init__(
        self,
        sock: socket.socket,
        tenant: str,
        identifier: str,
        permission: Mapping[str, Any],
        settings: Settings,
        plugin_log: PluginLog,
        target: Target,
        admission: Admission,
    ) -> None:
        self.tenant = tenant
        self._admission = admission
        self._most = settings.tidegate_instance_sessions
        self.identifier = identifier
        self.state = State.NEW
        self.served = 0
        self.opened = 0
        self.started_at = SYSTEM_CLOCK.monotonic()
        self._sock = sock
        self._talk = Talk(
            Caller(identifier, permission),
            plugin_log,
            ready=_nothing,
            session_of=self._session_of,
            break_off=self._break_off,
            target=target,
        )
        self.sessions = Sessions(settings.line_limit, self._talk, on_end=self._session_ended)
        self._dirty: list[Port] = []
        budget = settings.tidegate_plugin_backlog
        # A descriptor of its own: reader and writer then wait and close each for itself.
        self._writer = self._talk.writer = Writer(os.dup(sock.fileno()), budget, self._broken)
        self._writing: gevent.Greenlet | None = None
        self._deadlines = Deadlines(self._expire)
        self._empty = Event()
        self._over = Event()
        self._ending: CallFailed | None = None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Ready from now on: the registration was all that there was to wait for."""
        self._become(State.STARTING)
        self._writing = gevent.spawn(self._writer.run)
        self._become(State.READY)

    def wait_ready(self, seconds: float) -> bool:
        """It is ready as soon as it was started."""
        return self.state is State.READY

    def run(self, first: bytes) -> None:
        """Read until the connection ends, then end all that it was serving.

        ``first`` came together with the end of the registration. Body of the connection's
        greenlet.
        """
        try:
            if first:
                self._take(first)
                self._send()
            read_all(_Socket(self._sock), self._take, self._send)
        except OSError as error:
            log.debug("debugging connection lost", plugin=self.identifier, error=str(error))
        finally:
            self._finish()

    def drain(self, grace: float) -> None:
        """Let open sessions end by themselves for ``grace`` seconds, then hang up."""
        if self.state is State.READY:
            self._become(State.DRAINING)
            if self.load:
                self._empty.clear()
                self._empty.wait(grace)
        self.stop()

    def stop(self, reason: CallFailed | None = None) -> None:
        """Hang up and wait for the end. Idempotent."""
        self._ending = self._ending or reason
        self.hang_up()
        self._over.wait(5.0)

    def hang_up(self) -> None:
        """End the connection; its reader does the rest. Never waits."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("debugging connection already gone", error=str(error))

    # ------------------------------------------------------------------ sessions

    @property
    def load(self) -> int:
        """Open sessions."""
        return len(self.sessions.ports)

    @property
    def backlog(self) -> int:
        """Bytes that wait for the plugin to read them."""
        return self._writer.pending

    def open(self, call: ServerCall) -> bool:
        """Begin a session (``instance.Instance.open``)."""
        head = call.head
        assert isinstance(head, PluginHead)  # noqa: S101 - the host routes by this very type
        if self.state is not State.READY or self._writer.broken:
            return False
        session_id = head.session
        refusal = self._refusal(session_id)
        if refusal is not None:
            call.fail(refusal.as_json())
            return True
        self.opened += 1
        self._admission.entered(self.tenant)
        self.sessions.open(session_id, call)
        call.on_cancel = partial(self._forget, session_id)
        self._deadlines.add(session_id, head.seconds)
        if not self._writer.send(call.payload, session_id):
            self._forget(session_id)
            call.fail(self._overloaded().as_json())
        call.payload = b""
        return True

    def _refusal(self, session_id: str) -> CallFailed | None:
        """Why a call is not taken. At once: a developer's process does not have others wait."""
        if session_id in self.sessions.ports:
            return CallFailed(f"session {session_id} is open already")
        if self._most and self.load >= self._most:
            text = f"{self.load} sessions are open (TIDEGATE_INSTANCE_SESSIONS)"
            return Overloaded(text, retry_after=1)
        if not self._admission.may(self.tenant):
            return Overloaded(
                "the tenant has too many sessions (TIDEGATE_TENANT_SESSIONS)", retry_after=1
            )
        return None

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"the plugin does not read its connection: {self.backlog} bytes wait already",
            retry_after=1,
        )

    def _forget(self, session_id: str, reason: CallFailed | None = None) -> None:
        self.sessions.forget(session_id)
        self._writer.discard(session_id)
        self._left(session_id, reason)

    def _session_ended(self, session_id: str) -> None:
        self.served += 1
        self._left(session_id)

    def _left(self, session_id: str, reason: CallFailed | None = None) -> None:
        self._deadlines.discard(session_id)
        self._admission.left(self.tenant)
        self._talk.session_over(session_id, reason)
        if not self.sessions.ports:
            self._empty.set()

    def _expire(self, session_id: str) -> None:
        call = self.sessions.ports.get(session_id)
        if isinstance(call, ServerCall) and isinstance(call.head, PluginHead):
            error = Deadline(0.0, call.head.seconds, call.head.owner).error()
            self._forget(session_id, error)
            call.fail(error.as_json())

    def _break_off(self, session_id: str, error: bytes) -> None:
        call = self.sessions.ports.get(session_id)
        if isinstance(call, ServerCall):
            self._forget(session_id)
            call.fail(error)

    def _session_of(self, session_id: str) -> Session | None:
        call = self.sessions.ports.get(session_id)
        if not isinstance(call, ServerCall) or not isinstance(call.head, PluginHead):
            return None
        head = call.head
        left = self._deadlines.remaining(session_id)
        return Session(
            tenant=head.tenant,
            user=head.user,
            type=head.type,
            deadline=Deadline(SYSTEM_CLOCK.monotonic() + left, head.seconds, head.owner),
            trace=head.trace,
            depth=head.depth,
        )

    # ------------------------------------------------------------------ the connection

    def _take(self, data: bytes) -> None:
        try:
            self._dirty += self.sessions.receive(data)
        except Exception:
            # A defect of ours on some line must not cost all sessions of the connection.
            log.exception("output of a plugin not understood", plugin=self.identifier)
            self._dirty += self.sessions.unsent()

    def _send(self) -> None:
        dirty, self._dirty = self._dirty, []
        if dirty:
            flush(dirty)  # type: ignore[arg-type]
            wait_writable(dirty)  # type: ignore[arg-type]

    def _broken(self) -> None:
        """The writer noticed first: wake the reader."""
        self.hang_up()

    def _finish(self) -> None:
        if self._writing is not None:
            self._writing.kill()
        self._talk.close()
        self._writer.close()
        self._deadlines.close()
        self._become(State.GONE)
        ending = self._ending or ConnectionClosed(_CLOSED, plugin=self.identifier)
        for _ in self.sessions.ports:
            self._admission.left(self.tenant)
        flush(self.sessions.end_all(ending.as_json()))  # type: ignore[arg-type]
        self._empty.set()
        self._over.set()

    def _become(self, state: State) -> None:
        check_transition(self.state, state)
        log.debug("instance changed", plugin=self.identifier, old=self.state, new=state.value)
        self.state = state


@final
class _Socket:
    """A socket as ``reading.read_all`` reads it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return int(self._sock.fileno())

    def read(self, size: int) -> bytes:
        """What is there; waits for the first. Empty at the end."""
        data: bytes = self._sock.recv(size)
        return data


def _nothing() -> None:
    """A debugged plugin is ready by its registration, not by a heartbeat."""
