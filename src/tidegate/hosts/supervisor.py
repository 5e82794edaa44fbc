"""Keeps one plugin running while somebody calls it.

    IDLE --call--> STARTING --ready--> UP --process died--> IDLE (or STARTING, when calls wait)
      ^               |                 |
      |               +--failed---------|---> IDLE, after too many deaths QUARANTINED
      +----------idle, or stop----------+

A call goes to the instance with the fewest sessions. One that comes while the plugin is not up
waits in line, up to the start limit; one that finds every session taken waits for a free one. The
one greenlet of the ``Starter`` prepares, starts and waits for readiness, then the line is let in.
Failures go to everybody who waits, at once and with the reason. No greenlet exists while a plugin
is up or idle; what has to be looked at from time to time, ``care`` looks at.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import final

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Exit, Progress
from tidegate.errors import CallFailed, PluginStartFailed, TidegateError
from tidegate.hosts.admission import Admission
from tidegate.hosts.choosing import choose, serves
from tidegate.hosts.entrance import Entrance
from tidegate.hosts.instance import State
from tidegate.hosts.launch import Prepared
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.provision import PackageMissing, Provision
from tidegate.hosts.restarts import Restarts
from tidegate.hosts.starting import Start, Starter
from tidegate.hosts.waiting import NOT_FOUND
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")


class Phase(enum.Enum):
    """Where a plugin is."""

    IDLE = "idle"
    STARTING = "starting"
    UP = "up"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"


@final
class Supervisor:
    """One plugin of this host. Made by ``PluginHost`` for an identifier's first call.

    ``settings`` are this plugin's (``Settings.for_plugin``).
    """

    def __init__(
        self,
        identifier: str,
        provision: Provision,
        settings: Settings,
        slots: BoundedSemaphore,
        make: Callable[[Prepared, Callable[[LocalInstance], None]], LocalInstance],
        on_unknown: Callable[[Supervisor], None],
        admission: Admission | None = None,
    ) -> None:
        """``make`` makes an instance; ``on_unknown`` hears when there is no such package."""
        self.identifier = identifier
        self.settings = settings
        self.restarts = Restarts(settings.tidegate_quarantine)
        self.starts = 0
        #: Instances that were stopped at their memory limit, at another one, for hanging.
        self.ooms = self.limited = self.hangs = 0
        self.last_error = ""
        self.pool: list[LocalInstance] = []
        self._provision = provision
        self._slots = slots
        self._make = make
        self._on_unknown = on_unknown
        self._entrance = Entrance(
            settings,
            admission or Admission(settings.tidegate_tenant_sessions),
            begin=self._begin,
            free=lambda: self._pick() is not None,
            explain=lambda: self._starter.doing,
        )
        self._starter = Starter(
            identifier,
            self._attempt,
            lambda: self.restarts.wait,
            self._switch_to,
            self._start_failed,
        )
        #: Those whose place the next one takes; those that end their calls and are called no more.
        self._outgoing: set[LocalInstance] = set()
        self._leaving: set[LocalInstance] = set()
        self._stopped = False
        self._ended = Event()

    # ------------------------------------------------------------------ calls

    def open(self, call: ServerCall) -> None:
        """Begin a session, now or when there is one. Never waits (``link.Handler.opened``)."""
        if self._entrance.admit(call):
            return
        serving = any(serves(one, self.settings) for one in self.pool)
        refusal = None if serving else self._refusal()
        if refusal is not None:
            call.fail(refusal.as_json())
            return
        # In line first: a start that fails at once fails everybody who is in it.
        self._entrance.wait(call, crowded=serving)
        if not serving:
            self._starter.begin()

    def _begin(self, call: ServerCall) -> bool:
        while (instance := self._pick()) is not None:
            if instance.open(call):
                return True
        return False

    def _pick(self) -> LocalInstance | None:
        return choose(self.pool, self.settings)

    def _refusal(self) -> CallFailed | None:
        if self._stopped:
            return PluginStartFailed(f"{NOT_FOUND}: {self.identifier} is being stopped")
        return self.restarts.error(self.identifier, self.last_error)

    # ------------------------------------------------------------------ life

    @property
    def instance(self) -> LocalInstance | None:
        """The first of the instances that calls go to."""
        return self.pool[0] if self.pool else None

    @property
    def phase(self) -> Phase:
        """Where the plugin is now."""
        if self._stopped:
            return Phase.STOPPED
        if any(one.state is State.READY for one in self.pool):
            return Phase.UP
        if self._starter.running:
            return Phase.STARTING
        return Phase.QUARANTINED if self.restarts.quarantined_until else Phase.IDLE

    @property
    def sessions(self) -> int:
        """Sessions that are open, over all instances."""
        return self._entrance.sessions

    @property
    def waiting(self) -> int:
        """Calls that wait for the plugin to be up, or for a session."""
        return self._entrance.waiting

    @property
    def instances(self) -> list[LocalInstance]:
        """Every process that lives: those in use, one that starts, those that drain.

        The one that starts may have no process yet (``State.NEW``).
        """
        own = [*self.pool, self._starter.candidate, *self._leaving]
        return [one for one in own if one is not None]

    @property
    def starting(self) -> bool:
        """Whether an instance is on its way."""
        return self._starter.running

    def ensure_up(self, progress: Progress | None = None) -> None:
        """Wait until the plugin is up; TidegateError with the reason when it does not come up.

        Called by control operations (install, restart), in a greenlet of their own.
        """
        if self.phase is Phase.UP:
            return
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        self._starter.wait(progress)

    def restart(self, progress: Progress | None = None) -> None:
        """Start a new process, route to it, let the old one end its calls. Ends a quarantine.

        TidegateError when the new one does not come up; the old one then goes on.
        """
        self.restarts.forgive()
        refusal = self._refusal()
        if refusal is not None:  # being stopped: nobody would ever end what is started now
            raise refusal
        self._outgoing.update(self.pool)
        self._starter.wait(progress)

    def more(self, why: str) -> None:
        """Start one more instance, unless one is on its way or the plugin must not start."""
        if not self._starter.running and self._refusal() is None:
            log.info("one more instance", plugin=self.identifier, why=why)
            self._starter.begin()

    def replace(self, instance: LocalInstance, why: str) -> None:
        """Start an instance that takes the place of this one, which then ends its calls and goes.

        Called by ``care``, again and again when it likes; no call is lost by it.
        """
        if instance in self._outgoing or self._refusal() is not None:
            return
        log.info("instance replaced", plugin=self.identifier, pid=instance.pid, why=why)
        self._outgoing.add(instance)
        self._starter.begin()

    def retire(self, instance: LocalInstance) -> None:
        """Route nothing more to ``instance``; it ends its calls and goes."""
        if instance in self.pool:
            self.pool.remove(instance)
            if instance.state is State.READY:
                # Kept: whoever stops the plugin meanwhile must find it.
                self._leaving.add(instance)
                gevent.spawn(instance.drain, float(self.settings.plugin_max_execution_timeout))

    def stop(self, grace: float) -> None:
        """Take no more calls, let open ones end for ``grace`` seconds, end every process.

        Called by control operations and at the host's end, in a greenlet that nobody kills: one
        stopped by half would refuse calls for ever. Returns when nothing is left. Twice at once
        the shorter grace counts.
        """
        self._stopped = True
        # The start before the instances: what it has brought so far is one of them then.
        self._starter.kill(PluginStartFailed(f"{self.identifier} was stopped"))
        refusal = self._refusal()
        if refusal is not None:
            self._entrance.fail(refusal)
        self._entrance.close()
        gevent.joinall([gevent.spawn(one.drain, grace) for one in self.instances])
        self._ended.set()

    def wait_stopped(self) -> None:
        """Wait for the end of :meth:`stop`, which somebody else called."""
        self._ended.wait()

    def _attempt(self, tell: Progress) -> Start:
        return Start(self.identifier, self.settings, self._provision, self._slots, self._made, tell)

    def _made(self, prepared: Prepared) -> LocalInstance:
        self.starts += 1
        return self._make(prepared, self._gone)

    def _switch_to(self, instance: LocalInstance) -> None:
        """Route to ``instance`` as well; those whose place it takes end their calls and go."""
        # The new one before the old ones go: there is always one to route to.
        self.pool.append(instance)
        outgoing, self._outgoing = self._outgoing, set()
        for old in outgoing:
            self.retire(old)
        self._entrance.pump()
        if len(self.pool) < self.settings.tidegate_instances_min:
            self._starter.begin()

    def _start_failed(self, error: TidegateError, had_process: bool) -> CallFailed:
        """What everybody who waits is told."""
        if isinstance(error, PackageMissing):
            self._on_unknown(self)
        elif not had_process:  # it cannot even be prepared; else its own end counts (_gone)
            self.restarts.died(ready=False, lived=0.0, served=0)
        self.last_error = error.message
        log.error("plugin not started", plugin=self.identifier, error=error.message)
        failure: CallFailed
        if isinstance(error, CallFailed):
            failure = error
        else:
            failure = PluginStartFailed(error.message, **error.details)
        # They serve on: a plugin that cannot be replaced is better than none.
        self._outgoing.clear()
        if not self.pool:
            self._entrance.fail(failure)
        return failure

    def _gone(self, instance: LocalInstance) -> None:
        """An instance ended (called once by each)."""
        self._leaving.discard(instance)
        if instance.state is State.FAILED:
            lived = SYSTEM_CLOCK.monotonic() - instance.started_at
            served = instance.table.served
            self.restarts.died(ready=instance.ready_after > 0, lived=lived, served=served)
            how = instance.death.how(instance.exit or Exit())
            self.last_error = f"{how}: {instance.last_words()}".strip(": ")
            log.warning("plugin died", plugin=self.identifier, exit=instance.exit, lived=lived)
        self._outgoing.discard(instance)
        if instance in self.pool:
            self.pool.remove(instance)
            # One that nobody called may be left down: its next call starts it.
            used = instance.table.opened and not self._stopped
            few = used and len(self.pool) < self.settings.tidegate_instances_min
            if few or (self.waiting and not self.pool):
                self._restart_after_death()

    def _restart_after_death(self) -> None:
        refusal = self._refusal()
        if refusal is None:
            self._starter.begin()
        elif not self.pool:
            self._entrance.fail(refusal)
