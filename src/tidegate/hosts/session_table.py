"""The sessions of one plugin connection, whatever carries it: pipes of a process, or a socket.

    call --open--> OPEN --end, error: the plugin's--> served
                     +--deadline, caller left, broken off--> abandoned: what comes late is dropped
                     +--the connection ended--> end_all, with the reason

Each session is in four books at once - where its output goes (wire/sessions), when it ends, which
back-calls it has open, what of its request still waits - and it leaves all four together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final

from gevent.event import Event

from tidegate.backcalls import Caller, Session, Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.deadline import Deadline
from tidegate.errors import CallFailed, Overloaded
from tidegate.hosts.deadlines import Deadlines
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.talk import Talk
from tidegate.hosts.waiting import RETRY_AFTER
from tidegate.hosts.writer import Writer
from tidegate.link import ServerCall, flush, wait_writable
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead
from tidegate.wire.ports import Port
from tidegate.wire.sessions import Sessions

log = get_log("hosts")

_now = SYSTEM_CLOCK.monotonic


@final
class SessionTable:
    """Made by an instance for its connection; ``attach`` gives it the way to the plugin.

    Touched by the instance's reader, by the hub and by the link's readers; nothing here waits but
    :meth:`hand_on` and :meth:`wait_empty`. A session that it took ends exactly once.
    """

    def __init__(
        self,
        caller: Caller,
        plugin_log: PluginLog,
        target: Target,
        *,
        line_limit: int,
        ready: Callable[[], None],
        clean: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """``ready`` hears of the first heartbeat; ``clean``: see ``wire.sessions.Sessions``."""
        self._plugin = caller.plugin
        #: Sessions that the plugin brought to an end; that began; that nobody waited for any more.
        self.served = self.opened = self.abandoned = 0
        self.idle_since = _now()
        self._silent_since = 0.0
        self._talk = Talk(
            caller,
            plugin_log,
            ready=ready,
            session_of=self._session_of,
            break_off=self._break_off,
            target=target,
        )
        self._sessions = Sessions(line_limit, self._talk, on_end=self._ended, clean=clean)
        self._ports = self._sessions.ports
        self.counters = self._sessions.counters
        self._deadlines = Deadlines(self._expire)
        self._dirty: list[Port] = []
        self._empty = Event()
        self._writer: Writer

    def attach(self, writer: Writer) -> None:
        """Requests and answers to back-calls go out by ``writer``. Once, before the first call."""
        self._writer = self._talk.writer = writer

    # ------------------------------------------------------------------ what is open

    @property
    def load(self) -> int:
        """Open sessions."""
        return len(self._ports)

    @property
    def backcalls(self) -> int:
        """Back-calls that are not answered yet."""
        return self._talk.backcalls

    @property
    def backlog(self) -> int:
        """Bytes that wait for the plugin to read them."""
        return self._writer.pending

    def stalled(self, limit: float) -> bool:
        """Whether calls were given to it ``limit`` seconds ago and no session said anything since.

        Not while it waits for us (a back-call), and never with ``limit`` 0.
        """
        since = self._silent_since
        if not since or not limit or _now() - since <= limit:
            return False
        # Silent because it waits for Dify, or for another plugin: not for itself.
        return not self._talk.backcalls

    def wait_empty(self, seconds: float) -> None:
        """Wait until no session is open, ``seconds`` at most. Called by what drains it."""
        if self._ports:
            self._empty.clear()
            self._empty.wait(seconds)

    # ------------------------------------------------------------------ calls

    def open(self, call: ServerCall) -> bool:
        """Begin a session: its request goes to the plugin, what comes for it to ``call``.

        False, and the call is another's to serve, when the connection broke this very moment.
        """
        head = call.head
        assert isinstance(head, PluginHead)  # noqa: S101 - the host routes by this very type
        session_id = head.session
        # Ids come from outside. Two sessions of one id would get each other's chunks.
        if session_id in self._ports:
            call.fail(CallFailed(f"session {session_id} is open already").as_json())
            return True
        self.opened += 1
        # Before the request goes out: the answer to it may come within the same turn.
        self._sessions.open(session_id, call)
        call.on_cancel = partial(self._forget, session_id)
        self._deadlines.add(session_id, head.seconds)
        admitted = self._writer.send(call.payload, session_id)
        if self._writer.broken:
            self._forget(session_id)
            return False
        # Up to 256 MiB that the plugin has now, or the writer keeps.
        call.payload = b""
        if not admitted:
            self._forget(session_id)
            call.fail(self._not_read().as_json())
        # The first call that nothing was said since; later ones must not put it off.
        elif not self._silent_since:
            self._silent_since = _now()
        return True

    def end_all(self, reason: CallFailed) -> None:
        """The connection ended: so do its sessions, with ``reason``, and their back-calls."""
        # Work for it is stopped before its calls are told, whose ends may bring the next ones at
        # once.
        self._talk.close()
        self._writer.close()
        self._deadlines.close()
        flush(self._sessions.end_all(reason.as_json()))  # type: ignore[arg-type]
        self._empty.set()

    # ------------------------------------------------------------------ the instance's reader

    def take(self, data: bytes) -> None:
        """What one read gave. :meth:`hand_on` follows, after one or a few."""
        try:
            self._dirty += self._sessions.receive(data)
        except Exception:
            # A defect of ours on some line must not cost all sessions of the connection.
            log.exception("output of a plugin not understood", plugin=self._plugin)
            self._dirty += self._sessions.unsent()

    def hand_on(self) -> None:
        """Hand on what was taken, in one write per caller. Waits while callers are busy."""
        dirty, self._dirty = self._dirty, []
        if dirty:
            self._silent_since = 0.0
            flush(dirty)  # type: ignore[arg-type]
            wait_writable(dirty)  # type: ignore[arg-type]

    # ------------------------------------------------------------------ how a session leaves

    def _ended(self, session_id: str) -> None:
        self.served += 1
        self._left(session_id)

    def _forget(self, session_id: str, reason: CallFailed | None = None) -> None:
        self.abandoned += 1
        self._sessions.forget(session_id)
        # A request that has not begun to go out is of no use to anybody any more.
        self._writer.discard(session_id)
        self._left(session_id, reason)

    def _left(self, session_id: str, reason: CallFailed | None = None) -> None:
        self._deadlines.discard(session_id)
        self._talk.session_over(session_id, reason)
        if not self._ports:
            self.idle_since = _now()
            self._empty.set()
            if reason is None:  # a call whose time is over says that something is wrong
                self._silent_since = 0.0

    def _expire(self, session_id: str) -> None:
        call = self._call(session_id)
        if call is not None:
            error = Deadline(0.0, call.head.seconds, call.head.owner).error()
            # First out of the books, then told: what the plugin says from here on is late.
            self._forget(session_id, error)
            call.fail(error.as_json())

    def _break_off(self, session_id: str, error: bytes) -> None:
        call = self._call(session_id)
        if call is not None:
            self._forget(session_id)
            call.fail(error)

    def _session_of(self, session_id: str) -> Session | None:
        call = self._call(session_id)
        if call is None or not isinstance(call.head, PluginHead):
            return None
        left = self._deadlines.remaining(session_id)
        return session_of(call.head, Deadline(_now() + left, call.head.seconds, call.head.owner))

    def _call(self, session_id: str) -> ServerCall | None:
        call = self._ports.get(session_id)
        return call if isinstance(call, ServerCall) else None

    def _not_read(self) -> Overloaded:
        return Overloaded(
            f"the plugin does not read its input: {self.backlog} bytes wait already",
            retry_after=RETRY_AFTER,
        )


def session_of(head: PluginHead, deadline: Deadline) -> Session:
    """A call's session as its back-calls see it."""
    return Session(
        tenant=head.tenant,
        user=head.user,
        type=head.type,
        deadline=deadline,
        trace=head.trace,
        depth=head.depth,
    )
