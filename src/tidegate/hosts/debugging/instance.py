"""A debugged plugin as an ``instance.Instance``: what a local one has pipes for has a socket here.

It is ready when it exists and ends with its connection. Nothing is asked of its heartbeats: a
developer who stands at a breakpoint for ten minutes loses neither connection nor registration;
calls that wait for him end at their own deadlines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, final

import gevent
from gevent import socket
from gevent.event import Event

from tidegate.backcalls import Caller, Target
from tidegate.clock import GIVE_WAY, SYSTEM_CLOCK
from tidegate.errors import CallFailed, ConnectionClosed
from tidegate.hosts.admission import Admission
from tidegate.hosts.entrance import Entrance
from tidegate.hosts.instance import State, check_transition
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.reading import read_all
from tidegate.hosts.session_table import SessionTable
from tidegate.hosts.writer import Writer
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

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
        self.identifier = identifier
        self.state = State.NEW
        self._most = settings.tidegate_instance_sessions
        self.started_at = SYSTEM_CLOCK.monotonic()
        self._sock = sock
        self.table = SessionTable(
            Caller(identifier, permission),
            plugin_log,
            target,
            line_limit=settings.line_limit,
            ready=_nothing,
        )
        #: Calls come in by it; :meth:`open` is for those whose turn it is.
        self.entrance = Entrance(
            settings,
            admission,
            begin=self.open,
            free=lambda: self._is_free,
        )
        # A descriptor of its own: reader and writer then wait and close each for itself.
        budget = settings.tidegate_plugin_backlog
        self._writer = Writer(os.dup(sock.fileno()), budget, self._broken)
        self.table.attach(self._writer)
        self._writing: gevent.Greenlet | None = None
        self._over = Event()
        self._ending: CallFailed | None = None
        self._hung_up = False

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Ready from now on: the registration was all that there was to wait for."""
        # Through it, though nothing starts: one table of states for all kinds.
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
                self.table.take(first)
                self.table.hand_on()
            read_all(_Socket(self._sock), self.table.take, self.table.hand_on)
        except OSError as error:
            log.debug("debugging connection lost", plugin=self.identifier, error=str(error))
        finally:
            self._finish()

    def drain(self, grace: float) -> None:
        """Let open sessions end by themselves for ``grace`` seconds, then hang up."""
        if self.state is State.READY:
            self._become(State.DRAINING)
            self.table.wait_empty(grace)
        self.stop()

    def stop(self, reason: CallFailed | None = None) -> None:
        """Hang up and wait for the end. Idempotent."""
        self._ending = self._ending or reason
        self.hang_up()
        self._over.wait(5.0)

    def hang_up(self) -> None:
        """End the connection; its reader does the rest. Never waits."""
        self._hung_up = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("debugging connection already gone", error=str(error))

    # ------------------------------------------------------------------ sessions

    @property
    def load(self) -> int:
        """Open sessions."""
        return self.table.load

    @property
    def usable(self) -> bool:
        """Whether it takes sessions: registered, and nobody has hung up."""
        return self.state is State.READY and not self._hung_up and not self._writer.broken

    def open(self, call: ServerCall) -> bool:
        """Begin a session (``instance.Instance.open``)."""
        return self._is_free and self.table.open(call)

    @property
    def _is_free(self) -> bool:
        """Whether it has a session to give."""
        return self.usable and not (self._most and self.load >= self._most)

    # ------------------------------------------------------------------ the connection

    def _broken(self) -> None:
        """The writer noticed first: wake the reader."""
        self.hang_up()

    def _finish(self) -> None:
        # The writer before the table, which closes its descriptor: nobody may wait on it then.
        if self._writing is not None:
            self._writing.kill()
        self._become(State.GONE)
        ending = self._ending or ConnectionClosed(_CLOSED, plugin=self.identifier)
        self.table.end_all(ending)
        self.entrance.fail(ending)
        self.entrance.close()
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
        # A socket that is never empty gives its bytes without letting anybody else run: who sends
        # faster than we read would have the host to himself.
        gevent.sleep(GIVE_WAY)
        data: bytes = self._sock.recv(size)
        return data


def _nothing() -> None:
    """A debugged plugin is ready by its registration, not by a heartbeat."""
