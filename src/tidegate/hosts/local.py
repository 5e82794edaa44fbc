"""A plugin as a process on this machine, spoken to by lines on its standard streams.

    host --stdin-->  plugin    one JSON object per line     Writer, one greenlet
    host <--stdout-- plugin    messages, heartbeats, logs   read_all + SessionTable, one greenlet
    host <--stderr-- plugin    free text, its tail kept     StandardError, one greenlet

Whatever the load, a process costs these three greenlets, a timer and a pidfd watcher, and a
session costs none. States: see ``instance``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, final

import gevent
from gevent.event import Event

from tidegate.backcalls import Caller, Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Child, Exit, ReadEnd, discard
from tidegate.errors import CallFailed, PluginStartFailed
from tidegate.hosts.cgroups import Cgroup
from tidegate.hosts.death import Death
from tidegate.hosts.instance import State, check_transition
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.launch import Box, Prepared, clear_scratch, places_of, start_process
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.processes import holds
from tidegate.hosts.reading import read_all, unread
from tidegate.hosts.session_table import SessionTable
from tidegate.hosts.stderr import StandardError
from tidegate.hosts.writer import Writer
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

CLOSED_OUTPUT: Final = "it closed its standard output"
#: Seconds in which what a dead process wrote is read, however much that is.
_LAST_WORDS: Final = 2.0
#: Between the end of its output and its own end: an orderly exit closes the one first.
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
        self.death = Death()
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
        self._child: Child | None = None
        self._ending: CallFailed | None = None
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
        self._child = child
        self._become(State.STARTING)
        self._stdout = ReadEnd(child.stdout)
        self._stderr_pipe = ReadEnd(child.stderr)
        self._stderr = StandardError(self._stderr_pipe, self._plugin_log)
        budget = self._settings.tidegate_plugin_backlog
        self._writer = Writer(child.stdin, budget, self._broken)
        self.table.attach(self._writer)
        reader = gevent.spawn(self._read, child)
        drainer = gevent.spawn(self._stderr.drain)
        self._greenlets = [reader, drainer, gevent.spawn(self._writer.run)]
        # In a greenlet: the child tells its end in the hub, where nothing may wait.
        child.on_exit(partial(gevent.spawn, self._finish))

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
            raise self.death.start_error(self.exit or Exit(), self.last_words(), self._group_ooms())
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
        if self._child is None:  # or its start came to nothing: there is no process
            return
        self.death.asked = True
        self.death.because("it was stopped")
        self._ending = self._ending or reason
        self._child.stop(self._settings.tidegate_stop_grace)
        self._over.wait(_LAST_WORDS * 2)

    def kill(self, why: str) -> None:
        """End the process now; its calls fail with ``why`` in the error. Does not wait."""
        self.death.because(why)
        if self._child is not None:
            self._child.kill()

    def condemn(self, setting: str, limit: int, used: int) -> None:
        """End it for using more than ``setting`` admits; its calls say so. Called by ``care``.

        The caller kills the other processes of the plugin.
        """
        kind = self.death.over_limit(setting, limit, used)
        log.warning(
            "plugin over its limit",
            plugin=self.prepared.identifier,
            kind=kind,
            setting=setting,
            limit=limit,
            used=used,
        )
        self.kill(kind)

    # ------------------------------------------------------------------ sessions

    @property
    def load(self) -> int:
        """Open sessions."""
        return self.table.load

    @property
    def pid(self) -> int:
        """Process id of the plugin; 0 while it has no process yet."""
        return self._child.pid if self._child is not None else 0

    @property
    def usable(self) -> bool:
        """Whether it takes sessions: ready, alive and listening."""
        # A dead one is ready until its last words were read, and takes none any more.
        return self.state is State.READY and self.exit is None and not self._writer.broken

    @property
    def mute(self) -> bool:
        """Whether it closed its output, of which the end does not come: a child has it, too."""
        return not holds(self.pid, self._stdout.fd)

    def open(self, call: ServerCall) -> bool:
        """Begin a session (``instance.Instance.open``)."""
        return self.usable and self.table.open(call)

    # ------------------------------------------------------------------ what the process does

    def _read(self, child: Child) -> None:
        why = CLOSED_OUTPUT
        try:
            read_all(self._stdout, self.table.take, self.table.hand_on)
        except Exception:
            # A defect of ours. Nobody would read on, and its calls would wait for their deadlines.
            log.exception("reader of a plugin failed", plugin=self.prepared.identifier)
            why = "its output could not be read"
        if child.wait(_EOF_GRACE) is None:
            self.kill(why)

    def _heard(self) -> None:
        if self.state is State.STARTING:
            self.table.idle_since = SYSTEM_CLOCK.monotonic()
            self.ready_after = self.table.idle_since - self.started_at
            self._become(State.READY)
            self._decided.set()

    def _broken(self) -> None:
        self.kill("it closed its standard input")

    def _finish(self) -> None:
        """The process ended: take its last words, then end all that it was serving."""
        if self._cgroup is not None:
            self._cgroup.kill()
        self._last_words()
        # Before what they work on is closed under them.
        gevent.killall(self._greenlets)
        self._become(State.GONE if self.death.asked else State.FAILED)
        told = self.death.error(self.exit or Exit(), self.last_words(), self._group_ooms())
        self.table.end_all(self._ending or told)
        self._stdout.close()
        self._stderr_pipe.close()
        self._decided.set()
        try:
            # Whoever waits for a new process first: a scratch folder may hold a million files, and
            # what the plugin left running is ended in here as well.
            self._on_gone(self)
        finally:
            clear_scratch(self._places)
            if self._cgroup is not None:
                self._cgroup.remove()
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
        """How its process ended; None while it runs, or there is none yet."""
        return self._child.exit if self._child is not None else None

    def _group_ooms(self) -> int:
        return self._cgroup.oom_kills if self._cgroup is not None else 0

    def _become(self, state: State) -> None:
        check_transition(self.state, state)
        log.debug(
            "instance changed", plugin=self.prepared.identifier, old=self.state, new=state.value
        )
        self.state = state
