"""Looks after the plugins of a host from time to time: one greenlet, one look at /proc.

| what it sees                              | what it does                                       |
|-------------------------------------------|----------------------------------------------------|
| memory or processes over the limit        | stopped; calls say `plugin_oom` or `plugin_limit`  |
| its output closed, kept open by a child    | at the next look ended, as if nobody kept it       |
| a stopped process (T) while calls wait    | after TIDEGATE_STOPPED_LIMIT replaced, calls end   |
| calls that nothing is heard of            | new ones go elsewhere; it ends its own and goes    |
| CPU burnt for calls that are over         | a new instance takes its place                     |
| memory or age over the mark of recycling  | a new instance takes its place                     |
| calls wait, or all instances are busy     | one more instance, up to the maximum               |
| instances without sessions                | those beyond the minimum end; idle plugins stop    |
| what a dead plugin left behind            | killed; collected where the host adopts orphans    |

Nothing here is on the way of a call.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import gevent
from gevent.event import Event

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import children, dividing
from tidegate.hosts.instance import State
from tidegate.hosts.local import CLOSED_OUTPUT, LocalInstance
from tidegate.hosts.processes import Families, Process, kill, look_at, scan, waited_for_cpu
from tidegate.hosts.scaling import Scaling
from tidegate.hosts.supervisor import Supervisor
from tidegate.runtime.heap import Rest, trim
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

_TICK: Final = 0.5
#: Between looks while nothing is called: a look costs some 15 us per process of the machine.
_DOZE: Final = 5.0
_DOZE_TO_STOP: Final = 1.0
#: Share of a core from which on an instance is busy.
_BUSY: Final = 0.8
#: Rounds of killing before what forks faster than it dies is left to the next look.
_ROUNDS: Final = 20


@dataclass(slots=True)
class _Record:
    """What was seen of one instance; times are monotonic, 0 is never."""

    looked_at: float = 0.0
    cpu: float = 0.0
    busy_since: float = 0.0
    stopped_since: float = 0.0
    mute: bool = False


@final
class Care:
    """One per host. ``adopts`` says that every child of this process is a plugin's or a build's.

    Then what plugins orphan comes to this process (PR_SET_CHILD_SUBREAPER) and is ended here.
    """

    def __init__(self, supervisors: Callable[[], list[Supervisor]]) -> None:
        self.adopts = False
        self.dozing = False
        self._supervisors = supervisors
        self._families = Families()
        self._records: dict[LocalInstance, _Record] = {}
        self._scaling = Scaling(self._busy_since)
        self._wake = Event()
        self._rest = Rest()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin to look. Called when the host has its first plugin. Idempotent."""
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Look no more. Called when the host stops, after its plugins ended."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def wake(self) -> None:
        """Look soon: something happens after a quiet time."""
        self.dozing = False
        self._wake.set()

    def bury(self, leader: int) -> None:
        """The process ``leader`` ended: end all that it left. Called once per instance."""
        for _ in range(_ROUNDS):
            left = self._families.orphans_of(leader, scan())
            if not left:
                break
            log.info("processes of a dead plugin killed", count=len(left))
            # Again and again: what is forked between the look and the kill is seen by the next
            # look.
            kill(left)
            gevent.sleep(0.01)
        # Its number may soon be another plugin's.
        self._families.forget(leader)
        self._collect()

    # ------------------------------------------------------------------ one look

    def _run(self) -> None:
        while True:
            # Before it is looked at who is busy: a call that comes in between is seen by the event.
            self._wake.clear()
            supervisors = self._supervisors()
            quiet = not any(one.sessions or one.waiting or one.starting for one in supervisors)
            self.dozing = quiet
            self._wake.wait(_pause(supervisors) if quiet else _TICK)
            if self.dozing and self._rest.due():
                trim()
            try:
                self.look()
            except Exception:
                log.exception("looking after plugins failed")

    def look(self) -> None:
        """Look at everything once and do what has to be done."""
        supervisors = self._supervisors()
        running = {
            one.pid: (supervisor, one)
            for supervisor in supervisors
            for one in supervisor.instances
            if one.state not in (State.NEW, State.GONE, State.FAILED)
        }
        processes = scan()
        families = self._families.sort(processes, running)
        now = SYSTEM_CLOCK.monotonic()
        for pid, (supervisor, instance) in running.items():
            self._look_at(supervisor, instance, families[pid], now)
        for supervisor in supervisors:
            self._scaling.adjust(supervisor, now)
        known = {instance for _, instance in running.values()}
        self._records = {one: kept for one, kept in self._records.items() if one in known}
        self._scaling.forget_others(supervisors)
        self._collect(processes)

    def _look_at(
        self, supervisor: Supervisor, instance: LocalInstance, family: list[Process], now: float
    ) -> None:
        memory = sum(one.memory for one in family)
        instance.memory = memory
        if self._over_limit(supervisor, instance, family, memory):
            return
        record = self._records.setdefault(instance, _Record())
        # Time in which it would have run and was not let is as good as time that it ran.
        wanted = sum(one.cpu for one in family) + waited_for_cpu(instance.pid)
        self._measure(record, wanted, now)
        leader = next((one for one in family if one.pid == instance.pid), None)
        if leader is not None and self._is_stopped(supervisor, instance, record, leader, now):
            return
        if self._is_mute(instance, record):
            instance.kill(CLOSED_OUTPUT)
        elif instance in supervisor.pool:
            self._judge(supervisor, instance, record, now)

    def _over_limit(
        self, supervisor: Supervisor, instance: LocalInstance, family: list[Process], memory: int
    ) -> bool:
        settings = supervisor.settings
        if instance.death.condemned:  # counted and told already; what is left of it is killed anew
            kill(family)
            return True
        if settings.tidegate_isolation == "0":
            return False
        if settings.tidegate_plugin_memory and memory > settings.tidegate_plugin_memory:
            supervisor.ooms += 1
            instance.condemn("TIDEGATE_PLUGIN_MEMORY", settings.tidegate_plugin_memory, memory)
        elif 0 < settings.tidegate_plugin_processes < len(family):
            supervisor.limited += 1
            processes = settings.tidegate_plugin_processes
            instance.condemn("TIDEGATE_PLUGIN_PROCESSES", processes, len(family))
        else:
            return False
        kill(family)
        return True

    def _measure(self, record: _Record, cpu: float, now: float) -> None:
        passed = now - record.looked_at
        if record.looked_at and passed > 0:
            # A child that ended takes its time with it: then nothing can be said.
            busy = (cpu - record.cpu) / passed >= _BUSY
            record.busy_since = (record.busy_since or record.looked_at) if busy else 0.0
        record.looked_at, record.cpu = now, cpu

    def _busy_since(self, instance: LocalInstance) -> float:
        record = self._records.get(instance)
        return record.busy_since if record is not None else 0.0

    def _is_stopped(
        self,
        supervisor: Supervisor,
        instance: LocalInstance,
        record: _Record,
        leader: Process,
        now: float,
    ) -> bool:
        """SIGSTOP, or a debugger of somebody: nothing will come of it while calls wait."""
        # t: by a tracer. Without calls nobody is hurt, and a developer may be at work in it.
        if leader.state not in ("T", "t") or not (instance.load or supervisor.waiting):
            record.stopped_since = 0.0
            return False
        record.stopped_since = record.stopped_since or now
        limit = supervisor.settings.tidegate_stopped_limit
        if now - record.stopped_since < limit:
            return False
        log.warning("stopped plugin replaced", plugin=supervisor.identifier, pid=instance.pid)
        supervisor.hangs += 1
        instance.kill(f"its process was stopped for {limit:g} s while calls waited")
        return True

    def _is_mute(self, instance: LocalInstance, record: _Record) -> bool:
        """The end of its output is not seen while a child of it has it open: calls would hang.

        Seen twice: a plugin may put something else in its place for a moment.
        """
        before, record.mute = record.mute, bool(instance.load) and instance.mute
        return before and record.mute

    def _judge(
        self, supervisor: Supervisor, instance: LocalInstance, record: _Record, now: float
    ) -> None:
        settings = supervisor.settings
        age = now - instance.started_at
        burning = now - record.busy_since if record.busy_since else 0.0
        if instance.table.stalled(settings.tidegate_stall_limit):
            self._stalled(supervisor, instance)
        elif 0 < settings.tidegate_recycle_memory < instance.memory:
            supervisor.replace(instance, "memory over TIDEGATE_RECYCLE_MEMORY")
        elif 0 < settings.tidegate_recycle_age < age:
            supervisor.replace(instance, "older than TIDEGATE_RECYCLE_AGE")
        # A caller that left is told to nobody: the SDK knows no cancel. So work for nobody is seen
        # by the CPU that it burns.
        elif instance.table.abandoned and 0 < _patience(instance, settings) < burning:
            supervisor.replace(instance, "burns CPU for calls that are over")

    def _stalled(self, supervisor: Supervisor, instance: LocalInstance) -> None:
        """Calls pass it by already; once another one serves, it only ends its own."""
        others = [one for one in supervisor.pool if one is not instance and one.usable]
        if others:
            log.warning("silent plugin replaced", plugin=supervisor.identifier, pid=instance.pid)
            supervisor.hangs += 1
            supervisor.retire(instance)

    # ------------------------------------------------------------------ orphans

    def _collect(self, processes: dict[int, Process] | None = None) -> None:
        """End and collect what came to this process when its parent ended."""
        # While a child makes its namespaces there are two more whose numbers are not known yet.
        if not self.adopts or dividing():
            return
        own, ours = os.getpid(), children()
        strays = 0
        for process in (processes or scan()).values():
            if process.parent != own or process.pid in ours:
                continue
            if process.alive and not self._families.knows(process):
                strays += 1
                kill([process])
            now = look_at(process.pid)
            if now is not None and not now.alive and now.parent == own:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
        if strays:  # one line: a plugin can make a thousand of them between two looks
            log.info("stray processes killed", count=strays)


def _pause(supervisors: list[Supervisor]) -> float:
    """Seconds until the next look when nothing is called: soon, where instances shall end."""
    ending = any(
        len(one.pool) > one.settings.tidegate_instances_min
        or (one.pool and one.settings.tidegate_idle_stop)
        or any(instance.table.abandoned for instance in one.pool)
        for one in supervisors
    )
    return _DOZE_TO_STOP if ending else _DOZE


def _patience(instance: LocalInstance, settings: Settings) -> float:
    """Seconds that it may use all of a core; more while it may be working for open calls."""
    return settings.tidegate_burn_limit * (6 if instance.load else 1)
