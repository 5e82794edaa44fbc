"""A plugin as a process on this machine, spoken to by lines on its standard streams.

    host --stdin-->  plugin    one JSON object per line     Writer, one greenlet
    host <--stdout-- plugin    messages, heartbeats, logs   read_all + SessionTable, one greenlet
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

from tidegate.backcalls import Caller, Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Child, Exit, ReadEnd, discard
from tidegate.errors import CallFailed, PluginDied, PluginStartFailed
from tidegate.hosts.cgroups import Cgroup
from tidegate.hosts.instance import State, check_transition
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.launch import Box, Prepared, clear_scratch, places_of, start_process
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.processes import holds, oom_kills
from tidegate.hosts.reading import read_all, unread
from tidegate.hosts.session_table import SessionTable
from tidegate.hosts.stderr import StandardError
from tidegate.hosts.writer import Writer
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

CLOSED_OUTPUT: Final = "it closed its standard output"
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
        self.started_at = SYSTEM_CLOCK.monotonic()
        self.ready_after = 0.0
        self.memory = 0
        self._limit: dict[str, Any] = {}
        self._ooms_before = oom_kills()
        self._settings = settings
        self._environ = environ
        self._isolation = isolation
        self._cgroup: Cgroup | None = None
        self.box = Box(0)
        self._on_gone = on_gone
        self._plugin_log = plugin_log
        self.table = SessionTable(
            Caller(prepared.identifier, prepared.permission),
            plugin_log,
            target,
            line_limit=settings.line_limit,
            ready=self._heard,
            clean=prepared.scrub,
        )
        self._decided = Event()
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
        self._places = places_of(self.prepared, self._settings)
        self.started_at = SYSTEM_CLOCK.monotonic()
        try:
            self.box = self._isolation.box(self.prepared, self._places)
            child = self._start_process()
        except BaseException:
            self._not_started()
            raise
        # Only now it can be stopped or killed, and looked at: before there was no process.
        if self.state is State.GONE:
            discard(child)
            self._not_started()
            raise PluginStartFailed("plugin failed to start: it was stopped meanwhile")
        self._child: Child = child
        self._become(State.STARTING)
        self._stdout = ReadEnd(self._child.stdout)
        self._stderr_pipe = ReadEnd(self._child.stderr)
        self._stderr = StandardError(self._stderr_pipe, self._plugin_log)
        budget = self._settings.tidegate_plugin_backlog
        self._writer = Writer(self._child.stdin, budget, self._broken)
        self.table.attach(self._writer)
        self._reader = gevent.spawn(self._read)
        drainer = gevent.spawn(self._stderr.drain)
        self._greenlets = [self._reader, drainer, gevent.spawn(self._writer.run)]
        self._child.on_exit(partial(gevent.spawn, self._finish))

    def _not_started(self) -> None:
        if self.state is State.NEW:
            self._become(State.STARTING)
            self._become(State.FAILED)
        clear_scratch(self._places)
        if self._cgroup is not None:
            self._cgroup.remove()

    def _start_process(self) -> Child:
        root = self._isolation.cgroup_root
        box = self.box
        if root is not None:
            self._cgroup = Cgroup.make(root, self.prepared.plugin_id, self._settings)
            box = replace(box, view=(f"c {self._cgroup.folder}", *box.view))
        return start_process(self.prepared, self._settings, self._environ, box, self._places)

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
        if self.state is State.DRAINING:
            self.table.wait_empty(grace)
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
        return self.table.load

    @property
    def pid(self) -> int:
        """Process id of the plugin."""
        return self._child.pid

    @property
    def usable(self) -> bool:
        """Whether it takes sessions: ready, alive and listening."""
        return self.state is State.READY and self._child.exit is None and not self._writer.broken

    @property
    def mute(self) -> bool:
        """Whether it closed its output, of which the end does not come: a child has it, too."""
        return not holds(self.pid, self._stdout.fd)

    def open(self, call: ServerCall) -> bool:
        """Begin a session (``instance.Instance.open``)."""
        return self.usable and self.table.open(call)

    # ------------------------------------------------------------------ what the process does

    def _read(self) -> None:
        read_all(self._stdout, self.table.take, self.table.hand_on)
        if self._child.wait(_EOF_GRACE) is None:
            self.kill(CLOSED_OUTPUT)

    def _heard(self) -> None:
        if self.state is State.STARTING:
            self.table.idle_since = SYSTEM_CLOCK.monotonic()
            self.ready_after = self.table.idle_since - self.started_at
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
        self._become(State.GONE if self._stop_asked else State.FAILED)
        self.table.end_all(self._ending or self._death())
        self._stdout.close()
        self._stderr_pipe.close()
        clear_scratch(self._places)
        self._decided.set()
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
