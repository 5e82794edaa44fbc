"""A plugin as a process on this machine, spoken to by lines on its standard streams.

    host --stdin-->  plugin    one JSON object per line     Writer, one greenlet
    host <--stdout-- plugin    messages, heartbeats, logs   read_all + wire.Sessions, one greenlet
    host <--stderr-- plugin    free text, its tail kept     StandardError, one greenlet

Whatever the load, a process costs these three greenlets, a timer and a pidfd watcher, and a
session costs none. States: see ``instance``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, final

import gevent
from gevent.event import Event

from tidegate.backcalls import Caller, Session, Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.deadline import Deadline
from tidegate.environments import Child, Exit, ReadEnd
from tidegate.errors import CallFailed, Overloaded, PluginDied, PluginStartFailed
from tidegate.hosts.cgroups import Cgroup
from tidegate.hosts.deadlines import Deadlines
from tidegate.hosts.instance import State, check_transition
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.launch import Box, Prepared, home_of, start_process
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.processes import oom_kills
from tidegate.hosts.reading import read_all, unread
from tidegate.hosts.stderr import StandardError
from tidegate.hosts.talk import Talk
from tidegate.hosts.writer import Writer
from tidegate.link import ServerCall, flush, wait_writable
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead
from tidegate.wire.sessions import Port, Sessions

log = get_log("hosts")

_LAST_WORDS: Final = 2.0
_EOF_GRACE: Final = 0.1
_TAIL_LINES: Final = 30
_TAIL_BYTES: Final = 4096


@final
class LocalInstance:
    """One plugin process, an ``instance.Instance``. ``on_gone`` is called once, when it ended.

    Everything here runs in the host's own thread: in its three greenlets, in the hub, or in the
    caller's greenlet; there is nothing to lock.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        environ: Mapping[str, str],
        isolation: Isolation,
        plugin_log: PluginLog,
        target: Target,
        on_gone: Callable[[LocalInstance], None],
    ) -> None:
        self.prepared = prepared
        self.state = State.NEW
        self.served = 0
        self.opened = 0
        self.started_at = SYSTEM_CLOCK.monotonic()
        self.ready_after = 0.0
        self.idle_since = self.started_at
        self.abandoned = 0
        self.memory = 0
        self._limit: dict[str, Any] = {}
        self._ooms_before = oom_kills()
        self._silent_since = 0.0
        self._settings = settings
        self._environ = environ
        self._isolation = isolation
        self._cgroup: Cgroup | None = None
        self.box = Box(0)
        self._on_gone = on_gone
        self._plugin_log = plugin_log
        self._talk = Talk(
            Caller(prepared.identifier, prepared.permission),
            plugin_log,
            ready=self._heard,
            session_of=self._session_of,
            break_off=self._break_off,
            target=target,
        )
        self._dirty: list[Port] = []
        self.sessions = Sessions(
            settings.line_limit, self._talk, on_end=self._session_ended, clean=prepared.scrub
        )
        self._deadlines = Deadlines(self._expire)
        self._decided = Event()
        self._empty = Event()
        self._over = Event()
        self._reason = ""
        self._ending: CallFailed | None = None
        self._stop_asked = False
        self._greenlets: list[gevent.Greenlet] = []

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start the process and its greenlets. OSError when the system has none to give.

        May wait while the plugin is given its files; PluginStartFailed when it cannot reach them.
        """
        self.box = self._isolation.box(self.prepared, home_of(self.prepared, self._settings))
        self._become(State.STARTING)
        self.started_at = SYSTEM_CLOCK.monotonic()
        try:
            self._child: Child = self._start_process()
        except OSError:
            self._become(State.FAILED)
            raise
        self._stdout = ReadEnd(self._child.stdout)
        self._stderr_pipe = ReadEnd(self._child.stderr)
        self._stderr = StandardError(self._stderr_pipe, self._plugin_log)
        budget = self._settings.tidegate_plugin_backlog
        self._writer = self._talk.writer = Writer(self._child.stdin, budget, self._broken)
        self._reader = gevent.spawn(self._read)
        drainer = gevent.spawn(self._stderr.drain)
        self._greenlets = [self._reader, drainer, gevent.spawn(self._writer.run)]
        self._child.on_exit(partial(gevent.spawn, self._finish))

    def _start_process(self) -> Child:
        root = self._isolation.cgroup_root
        box = self.box
        if root is not None:
            self._cgroup = Cgroup.make(root, self.prepared.plugin_id, self._settings)
            box = replace(box, view=(f"c {self._cgroup.folder}", *box.view))
        try:
            return start_process(self.prepared, self._settings, self._environ, box)
        except OSError:
            if self._cgroup is not None:
                self._cgroup.remove()
            raise

    def wait_ready(self, seconds: float) -> bool:
        """True when ready; PluginStartFailed when it ended first; False when the time is over."""
        self._decided.wait(seconds)
        if self.state is State.FAILED or self.state is State.GONE:
            raise self._start_error()
        return self.state is not State.STARTING

    def drain(self, grace: float) -> None:
        """Let open sessions end by themselves for ``grace`` seconds, then stop."""
        if self.state in (State.STARTING, State.READY):
            self._become(State.DRAINING)
        if self.load and self.state is State.DRAINING:
            self._empty.clear()
            self._empty.wait(grace)
        self.stop()

    def stop(self, reason: CallFailed | None = None) -> None:
        """Terminate, wait the grace, kill; wait until nothing is left."""
        if self.state is State.NEW:
            self._become(State.GONE)
            self._over.set()
            return
        self._stop_asked = True
        self._reason = self._reason or "it was stopped"
        self._ending = self._ending or reason
        self._child.stop(self._settings.tidegate_stop_grace)
        self._over.wait(_LAST_WORDS * 2)

    def kill(self, why: str) -> None:
        """End the process now; its calls fail with ``why`` in the error. Does not wait."""
        self._reason = self._reason or why
        self._child.kill()

    def condemn(self, setting: str, limit: int, used: int) -> None:
        """End it for using more than ``setting`` admits; its calls say so. Called by ``care``.

        The caller kills the other processes of the plugin.
        """
        kind = "plugin_oom" if setting == "TIDEGATE_PLUGIN_MEMORY" else "plugin_limit"
        log.warning(
            "plugin over its limit",
            plugin=self.prepared.identifier,
            kind=kind,
            setting=setting,
            limit=limit,
            used=used,
        )
        self._limit = {"limit": kind, "setting": setting, "allowed": limit, "used": used}
        self.kill(f"{kind}: it used {used}, over its limit of {limit} ({setting})")

    # ------------------------------------------------------------------ sessions

    @property
    def load(self) -> int:
        """Open sessions."""
        return len(self.sessions.ports)

    @property
    def pid(self) -> int:
        """Process id of the plugin."""
        return self._child.pid

    @property
    def backcalls(self) -> int:
        """Back-calls of the plugin that are not answered yet."""
        return self._talk.backcalls

    @property
    def backlog(self) -> int:
        """Bytes that wait for the plugin to read them."""
        return self._writer.pending

    def open(self, call: ServerCall) -> bool:
        """Begin a session (``instance.Instance.open``)."""
        head = call.head
        assert isinstance(head, PluginHead)  # noqa: S101 - the host routes by this very type
        if not self.usable:
            return False
        session_id = head.session
        if session_id in self.sessions.ports:
            call.fail(CallFailed(f"session {session_id} is open already").as_json())
            return True
        self.opened += 1
        self.sessions.open(session_id, call)
        call.on_cancel = partial(self._forget, session_id)
        self._deadlines.add(session_id, head.seconds)
        admitted = self._writer.send(call.payload, session_id)
        if self._writer.broken:
            self._forget(session_id)  # it died this very moment: the next one takes the call
            return False
        call.payload = b""
        if not admitted:
            self._forget(session_id)
            error = Overloaded(
                f"the plugin does not read its input: {self.backlog} bytes wait already",
                retry_after=1,
            )
            call.fail(error.as_json())
        elif not self._silent_since:
            self._silent_since = SYSTEM_CLOCK.monotonic()
        return True

    @property
    def usable(self) -> bool:
        """Whether it takes sessions: ready, alive and listening."""
        return self.state is State.READY and self._child.exit is None and not self._writer.broken

    def stalled(self, limit: float) -> bool:
        """Whether calls were given to it ``limit`` seconds ago and no session said anything since.

        Not while it waits for us (a back-call), and never with ``limit`` 0.
        """
        since = self._silent_since
        if not since or not limit or SYSTEM_CLOCK.monotonic() - since <= limit:
            return False
        return not self._talk.backcalls

    def _forget(self, session_id: str, reason: CallFailed | None = None) -> None:
        self.abandoned += 1
        self.sessions.forget(session_id)
        self._writer.discard(session_id)
        self._left(session_id, reason)

    def _session_ended(self, session_id: str) -> None:
        self.served += 1
        self._left(session_id)

    def _left(self, session_id: str, reason: CallFailed | None = None) -> None:
        self._deadlines.discard(session_id)
        self._talk.session_over(session_id, reason)
        if not self.sessions.ports:
            self.idle_since = SYSTEM_CLOCK.monotonic()
            self._empty.set()
            if reason is None:  # a call whose time is over says that something is wrong
                self._silent_since = 0.0

    def _expire(self, session_id: str) -> None:
        call = self.sessions.ports.get(session_id)
        if isinstance(call, ServerCall) and isinstance(call.head, PluginHead):
            error = Deadline(0.0, call.head.seconds, call.head.owner).error()
            self._forget(session_id, error)
            call.fail(error.as_json())

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

    def _break_off(self, session_id: str, error: bytes) -> None:
        call = self.sessions.ports.get(session_id)
        if isinstance(call, ServerCall):
            self._forget(session_id)
            call.fail(error)

    # ------------------------------------------------------------------ what the process does

    def _read(self) -> None:
        read_all(self._stdout, self._take, self._send)
        if self._child.wait(_EOF_GRACE) is None:
            self.kill("it closed its standard output")

    def _take(self, data: bytes) -> None:
        try:
            self._dirty += self.sessions.receive(data)
        except Exception:
            # A defect of ours on some line must not cost all sessions of the process.
            log.exception("output of a plugin not understood", plugin=self.prepared.identifier)
            self._dirty += self.sessions.unsent()

    def _send(self) -> None:
        dirty, self._dirty = self._dirty, []
        if dirty:
            self._silent_since = 0.0
            flush(dirty)  # type: ignore[arg-type]
            wait_writable(dirty)  # type: ignore[arg-type]

    def _heard(self) -> None:
        if self.state is State.STARTING:
            self.idle_since = SYSTEM_CLOCK.monotonic()
            self.ready_after = self.idle_since - self.started_at
            self._become(State.READY)
            self._decided.set()

    def _broken(self) -> None:
        self._reason = self._reason or "it closed its standard input"
        self._child.kill()

    def _finish(self) -> None:
        """The process ended: take its last words, then end all that it was serving."""
        if self._cgroup is not None:
            self._cgroup.kill()
        self._last_words()
        gevent.killall(self._greenlets)
        self._talk.close()
        self._writer.close()
        self._deadlines.close()
        self._become(State.GONE if self._stop_asked else State.FAILED)
        ending = self._ending or self._death()
        flush(self.sessions.end_all(ending.as_json()))  # type: ignore[arg-type]
        self._stdout.close()
        self._stderr_pipe.close()
        self._decided.set()
        self._empty.set()
        if self._cgroup is not None:
            self._cgroup.remove()
        self._on_gone(self)
        self._over.set()

    def _last_words(self) -> None:
        end = SYSTEM_CLOCK.monotonic() + _LAST_WORDS
        waiting = self._greenlets[:2]
        while SYSTEM_CLOCK.monotonic() < end:
            gevent.joinall(waiting, timeout=0.02)
            waiting = [one for one in waiting if not one.dead]
            # Somebody who left the process group may hold the pipes open: do not wait for him.
            if not waiting or not (unread(self._stdout) or unread(self._stderr_pipe)):
                return

    # ------------------------------------------------------------------ errors

    def last_words(self) -> str:
        """The end of its standard error, without our paths."""
        tail = self._stderr.tail(_TAIL_LINES, _TAIL_BYTES)
        return self.prepared.scrub(tail).decode("utf-8", "replace")

    @property
    def exit(self) -> Exit | None:
        """How its process ended; None while it runs."""
        return self._child.exit

    def _death(self) -> PluginDied:
        how, details = self._how()
        said = f": {details['stderr']}" if details["stderr"] else ""
        return PluginDied(f"the plugin's process ended ({how}){said}", **details)

    def _start_error(self) -> PluginStartFailed:
        how, details = self._how()
        said = str(details["stderr"]) or "it said nothing"
        return PluginStartFailed(f"plugin failed to start: {how}: {said}", **details)

    def _how(self) -> tuple[str, dict[str, Any]]:
        ended = self._child.exit or Exit()
        stderr = self.last_words()
        details: dict[str, Any] = {
            "exit_code": ended.code,
            "signal": ended.signal,
            "stderr": stderr,
            "oom": self._ran_out_of_memory(ended, stderr),
            **self._limit,
        }
        return (f"{self._reason}, {ended}" if self._reason else str(ended)), details

    def _ran_out_of_memory(self, ended: Exit, stderr: str) -> bool:
        if self._limit:
            return bool(self._limit["limit"] == "plugin_oom")
        if "MemoryError" in stderr or (self._cgroup is not None and self._cgroup.oom_kills):
            return True
        # Nobody of ours killed it, and the kernel killed for memory meanwhile.
        killed = ended.signal == signal.SIGKILL and not self._reason and not self._stop_asked
        return killed and oom_kills() > self._ooms_before

    def _become(self, state: State) -> None:
        check_transition(self.state, state)
        log.debug(
            "instance changed", plugin=self.prepared.identifier, old=self.state, new=state.value
        )
        self.state = state
