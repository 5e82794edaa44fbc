"""Keeps one plugin running while somebody calls it.

    IDLE --call--> STARTING --ready--> UP --process died--> IDLE (or STARTING, when calls wait)
      ^               |                 |
      |               +--failed---------|---> IDLE, after too many deaths QUARANTINED
      +----------idle, or stop----------+

A call goes to the instance with the fewest sessions. One that comes while the plugin is not up
waits in line, up to the start limit; one that finds every session taken waits for a free one. The
one starter greenlet prepares, starts, waits for readiness and lets the line in. Failures go to
everybody who waits, at once and with the reason. No greenlet exists while a plugin is up or idle;
what has to be looked at from time to time, ``care`` looks at.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, final

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Progress
from tidegate.errors import CallFailed, PluginStartFailed, TidegateError
from tidegate.hosts.admission import Admission
from tidegate.hosts.entrance import Entrance
from tidegate.hosts.instance import State
from tidegate.hosts.launch import Prepared
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.provision import PackageUnknown, Provision
from tidegate.hosts.restarts import Restarts
from tidegate.hosts.starting import Start
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
            explain=lambda: self._doing,
        )
        self._starting: AsyncResult | None = None
        self._starter: gevent.Greenlet | None = None
        self._try: Start | None = None
        self._outgoing: set[LocalInstance] = set()
        self._leaving: set[LocalInstance] = set()
        self._listeners: list[Progress] = []
        self._stopped = False
        self._ended = Event()
        self._doing = "nothing was done yet"

    # ------------------------------------------------------------------ calls

    def open(self, call: ServerCall) -> None:
        """Begin a session, now or when there is one. Never waits (``link.Handler.opened``)."""
        if self._entrance.admit(call):
            return
        serving = any(self._serves(one) for one in self.pool)
        refusal = None if serving else self._refusal()
        if refusal is not None:
            call.fail(refusal.as_json())
            return
        self._entrance.wait(call, crowded=serving)
        if not serving:
            self._ensure_starting()

    def _begin(self, call: ServerCall) -> bool:
        while (instance := self._pick()) is not None:
            if instance.open(call):
                return True
        return False

    def _pick(self) -> LocalInstance | None:
        """The instance with the fewest sessions that takes one more."""
        pool = self.pool
        if len(pool) == 1:
            return pool[0] if self._takes(pool[0]) else None
        return min(filter(self._takes, pool), key=lambda one: one.load, default=None)

    def _takes(self, instance: LocalInstance) -> bool:
        cap = self.settings.tidegate_instance_sessions
        return (not cap or instance.load < cap) and self._serves(instance)

    def _serves(self, instance: LocalInstance) -> bool:
        stall = self.settings.tidegate_stall_limit
        return instance.usable and not instance.table.stalled(stall)

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
        if self._starter is not None:
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
        """Every process that lives: those in use, one that starts, those that drain."""
        candidate = self._try.candidate if self._try is not None else None
        own = [*self.pool, candidate, *self._leaving]
        return [one for one in own if one is not None]

    @property
    def starting(self) -> bool:
        """Whether an instance is on its way."""
        return self._starter is not None

    def ensure_up(self, progress: Progress | None = None) -> None:
        """Wait until the plugin is up; TidegateError with the reason when it does not come up.

        Called by control operations (install, restart), in a greenlet of their own.
        """
        if self.phase is Phase.UP:
            return
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        self._await_start(progress)

    def restart(self, progress: Progress | None = None) -> None:
        """Start a new process, route to it, let the old one end its calls. Ends a quarantine.

        TidegateError when the new one does not come up; the old one then goes on.
        """
        self.restarts.forgive()
        self._outgoing.update(self.pool)
        self._await_start(progress)

    def more(self, why: str) -> None:
        """Start one more instance, unless one is on its way or the plugin must not start."""
        if self._starter is None and self._refusal() is None:
            log.info("one more instance", plugin=self.identifier, why=why)
            self._ensure_starting()

    def replace(self, instance: LocalInstance, why: str) -> None:
        """Start an instance that takes the place of this one, which then ends its calls and goes.

        Called by ``care``, again and again when it likes; no call is lost by it.
        """
        if instance in self._outgoing or self._refusal() is not None:
            return
        log.info("instance replaced", plugin=self.identifier, pid=instance.pid, why=why)
        self._outgoing.add(instance)
        self._ensure_starting()

    def retire(self, instance: LocalInstance) -> None:
        """Route nothing more to ``instance``; it ends its calls and goes."""
        if instance in self.pool:
            self.pool.remove(instance)
            if instance.state is State.READY:
                self._leaving.add(instance)
                gevent.spawn(instance.drain, float(self.settings.plugin_max_execution_timeout))

    def stop(self, grace: float) -> None:
        """Take no more calls, let open ones end for ``grace`` seconds, end every process.

        Called by control operations and at the host's end. Returns when nothing is left.
        """
        self._stopped = True
        starter, self._starter = self._starter, None
        if starter is not None:
            starter.kill()
        refusal = self._refusal()
        if refusal is not None:
            self._entrance.fail(refusal)
        self._entrance.close()
        gevent.joinall([gevent.spawn(one.drain, grace) for one in self.instances])
        self._ended.set()

    def wait_stopped(self) -> None:
        """Wait for the end of :meth:`stop`, which somebody else called."""
        self._ended.wait()

    def _await_start(self, progress: Progress | None) -> None:
        if progress is not None:
            self._listeners.append(progress)
        try:
            self._ensure_starting().get()
        finally:
            if progress is not None:
                self._listeners.remove(progress)

    def _ensure_starting(self) -> AsyncResult:
        if self._starting is None or self._starter is None:
            self._starting = AsyncResult()
            self._starter = gevent.spawn(self._start, self._starting)
        return self._starting

    def _start(self, outcome: AsyncResult) -> None:
        """Body of the starter greenlet: one try, then everybody who waits knows."""
        try:
            gevent.sleep(self.restarts.wait)
            instance = self._bring_up()
        except TidegateError as error:
            self._start_failed(error, outcome)
        except Exception as error:
            log.exception("plugin cannot be started", plugin=self.identifier)
            self._start_failed(PluginStartFailed(f"internal error: {error!r}"), outcome)
        except gevent.GreenletExit:
            outcome.set_exception(PluginStartFailed(f"{self.identifier} was stopped"))
            raise
        else:
            self._starter = None
            self._try = None
            self._switch_to(instance)
            outcome.set(None)

    def _bring_up(self) -> LocalInstance:
        self._try = Start(self.identifier, self.settings, self._slots, self._made, self._progress)
        return self._try.run(self._provision)

    def _made(self, prepared: Prepared) -> LocalInstance:
        self.starts += 1
        return self._make(prepared, self._gone)

    def _switch_to(self, instance: LocalInstance) -> None:
        """Route to ``instance`` as well; those whose place it takes end their calls and go."""
        self.pool.append(instance)
        outgoing, self._outgoing = self._outgoing, set()
        for old in outgoing:
            self.retire(old)
        self._entrance.pump()
        if len(self.pool) < self.settings.tidegate_instances_min:
            self._ensure_starting()

    def _start_failed(self, error: TidegateError, outcome: AsyncResult) -> None:
        if isinstance(error, PackageUnknown):
            self._on_unknown(self)
        elif self._try is None or self._try.candidate is None:
            self.restarts.died(ready=False, lived=0.0, served=0)  # it cannot even be prepared
        self._starter = None
        self._try = None
        self.last_error = error.message
        log.error("plugin not started", plugin=self.identifier, error=error.message)
        failure: Any = error
        if not isinstance(error, CallFailed):
            failure = PluginStartFailed(error.message, **error.details)
        self._outgoing.clear()
        if not self.pool:
            self._entrance.fail(failure)
        outcome.set_exception(failure)

    def _gone(self, instance: LocalInstance) -> None:
        """An instance ended (called once by each)."""
        self._leaving.discard(instance)
        if instance.state is State.FAILED:
            lived = SYSTEM_CLOCK.monotonic() - instance.started_at
            served = instance.table.served
            self.restarts.died(ready=instance.ready_after > 0, lived=lived, served=served)
            self.last_error = f"{instance.exit}: {instance.last_words()}".strip(": ")
            log.warning("plugin died", plugin=self.identifier, exit=instance.exit, lived=lived)
        self._outgoing.discard(instance)
        if instance in self.pool:
            self.pool.remove(instance)
            used = instance.table.opened and not self._stopped
            few = used and len(self.pool) < self.settings.tidegate_instances_min
            if few or (self.waiting and not self.pool):
                self._restart_after_death()

    def _restart_after_death(self) -> None:
        refusal = self._refusal()
        if refusal is None:
            self._ensure_starting()
        elif not self.pool:
            self._entrance.fail(refusal)

    def _progress(self, step: str, message: str) -> None:
        self._doing = f"{step}: {message}"
        log.debug("plugin start", plugin=self.identifier, step=step, note=message)
        for listener in list(self._listeners):
            listener(step, message)
