"""Keeps one plugin running while somebody calls it.

    IDLE --call--> STARTING --ready--> UP --process died--> IDLE (or STARTING, when calls wait)
      ^               |                 |
      |               +--failed---------|---> IDLE, after too many deaths QUARANTINED
      +-----------------stop------------+

A call that comes while the plugin is not up waits in line, up to the start limit; the one starter
greenlet prepares, starts, waits for readiness and hands the line over. Failures go to everybody
who waits, at once and with the reason. No greenlet exists while a plugin is up or idle.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, final

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Progress
from tidegate.errors import CallFailed, PluginStartFailed, TidegateError
from tidegate.hosts.instance import State
from tidegate.hosts.launch import Prepared
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.provision import PackageUnknown, Provision
from tidegate.hosts.restarts import Restarts
from tidegate.hosts.waiting import NOT_FOUND, WaitingLine
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

#: A start holds its slot this long at most: a plugin that hangs must not keep others from it.
_SLOT_LIMIT: Final = 10.0


class Phase(enum.Enum):
    """Where a plugin is."""

    IDLE = "idle"
    STARTING = "starting"
    UP = "up"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"


@final
class Supervisor:
    """One plugin of this host. Made by ``PluginHost`` for an identifier's first call."""

    def __init__(
        self,
        identifier: str,
        provision: Provision,
        settings: Settings,
        slots: BoundedSemaphore,
        make: Callable[[Prepared, Callable[[LocalInstance], None]], LocalInstance],
        on_unknown: Callable[[Supervisor], None],
    ) -> None:
        """``make`` makes an instance; ``on_unknown`` hears when there is no such package."""
        self.identifier = identifier
        self.restarts = Restarts(settings.tidegate_quarantine)
        self.starts = 0
        self.last_error = ""
        self.instance: LocalInstance | None = None
        self._provision = provision
        self._settings = settings
        self._slots = slots
        self._make = make
        self._on_unknown = on_unknown
        self._line = WaitingLine(settings.tidegate_start_limit, lambda: self._doing)
        self._starting: AsyncResult | None = None
        self._starter: gevent.Greenlet | None = None
        self._candidate: LocalInstance | None = None
        self._leaving: set[LocalInstance] = set()
        self._listeners: list[Progress] = []
        self._stopped = False
        self._ended = Event()
        self._doing = "nothing was done yet"

    # ------------------------------------------------------------------ calls

    def open(self, call: ServerCall) -> None:
        """Begin a session, now or when the plugin is up. Never waits (``link.Handler.opened``)."""
        if self.instance is not None and self.instance.open(call):
            return
        refusal = self._refusal()
        if refusal is not None:
            call.fail(refusal.as_json())
            return
        self._line.add(call)
        self._ensure_starting()

    def _refusal(self) -> CallFailed | None:
        if self._stopped:
            return PluginStartFailed(f"{NOT_FOUND}: {self.identifier} is being stopped")
        return self.restarts.error(self.identifier, self.last_error)

    # ------------------------------------------------------------------ life

    @property
    def phase(self) -> Phase:
        """Where the plugin is now."""
        if self._stopped:
            return Phase.STOPPED
        if self.instance is not None and self.instance.state is State.READY:
            return Phase.UP
        if self._starter is not None:
            return Phase.STARTING
        return Phase.QUARANTINED if self.restarts.quarantined_until else Phase.IDLE

    @property
    def waiting(self) -> int:
        """Calls that wait for the plugin to be up."""
        return len(self._line)

    @property
    def instances(self) -> list[LocalInstance]:
        """Every process that lives: the one in use, one that starts, those that drain."""
        own = [self.instance, self._candidate, *self._leaving]
        return [one for one in own if one is not None]

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
        self._await_start(progress)

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
            self._line.fail(refusal)
        self._line.close()
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
            self._candidate = None
            self._switch_to(instance)
            outcome.set(None)

    def _bring_up(self) -> LocalInstance:
        prepared = self._provision.prepare(self.identifier, self._progress)
        self._progress("start", "starting the plugin")
        limit = self._settings.tidegate_start_limit
        end = SYSTEM_CLOCK.monotonic() + limit
        self._slots.acquire()
        try:
            instance = self._candidate = self._make(prepared, self._gone)
            self.starts += 1
            instance.start()
            ready = instance.wait_ready(min(limit, _SLOT_LIMIT))
        except OSError as error:
            raise PluginStartFailed(f"plugin failed to start: no process: {error}") from error
        finally:
            self._slots.release()
        if not ready and not instance.wait_ready(max(0.0, end - SYSTEM_CLOCK.monotonic())):
            said = instance.last_words()
            instance.kill("it did not become ready in time")
            raise PluginStartFailed(
                f"plugin failed to start: no heartbeat within {limit:g} s "
                f"(TIDEGATE_START_LIMIT): {said or 'it said nothing'}",
                limit=limit,
                stderr=said,
            )
        self._progress("ready", f"ready after {instance.ready_after:.2f} s")
        log.info(
            "plugin ready",
            plugin=self.identifier,
            pid=instance.pid,
            ms=round(instance.ready_after * 1000),
        )
        return instance

    def _switch_to(self, instance: LocalInstance) -> None:
        """Route to ``instance``; the one before it, if any, ends its calls and goes."""
        old, self.instance = self.instance, instance
        for call in self._line.take():
            self.open(call)
        if old is not None and old.state is State.READY:
            self._leaving.add(old)
            gevent.spawn(old.drain, float(self._settings.plugin_max_execution_timeout))

    def _start_failed(self, error: TidegateError, outcome: AsyncResult) -> None:
        if isinstance(error, PackageUnknown):
            self._on_unknown(self)
        elif self._candidate is None:
            self.restarts.died(ready=False, lived=0.0, served=0)  # it cannot even be prepared
        self._starter = None
        self._candidate = None
        self.last_error = error.message
        log.error("plugin not started", plugin=self.identifier, error=error.message)
        failure: Any = error
        if not isinstance(error, CallFailed):
            failure = PluginStartFailed(error.message, **error.details)
        self._line.fail(failure)
        outcome.set_exception(failure)

    def _gone(self, instance: LocalInstance) -> None:
        """An instance ended (called once by each)."""
        self._leaving.discard(instance)
        if instance.state is State.FAILED:
            lived = SYSTEM_CLOCK.monotonic() - instance.started_at
            self.restarts.died(ready=instance.ready_after > 0, lived=lived, served=instance.served)
            self.last_error = f"{instance.exit}: {instance.last_words()}".strip(": ")
            log.warning("plugin died", plugin=self.identifier, exit=instance.exit, lived=lived)
        if instance is self.instance:
            self.instance = None
            if self._line or (instance.opened and not self._stopped):
                self._restart_after_death()

    def _restart_after_death(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._line.fail(refusal)
        else:
            self._ensure_starting()

    def _progress(self, step: str, message: str) -> None:
        self._doing = f"{step}: {message}"
        log.debug("plugin start", plugin=self.identifier, step=step, note=message)
        for listener in list(self._listeners):
            listener(step, message)
