"""Bringing a plugin up: prepare it, start its process, wait until it is ready.

prepare --> slot --> process --heartbeat--> ready
   |          |         +--exit, or the start limit--> PluginStartFailed, with its last words
   +--no package, no build--> the reason

A :class:`Start` is one try; a :class:`Starter` is at it, for all who wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Progress
from tidegate.errors import CallFailed, PluginStartFailed, TidegateError
from tidegate.hosts.launch import Prepared
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.provision import Provision
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

#: A start holds its slot this long at most: a plugin that hangs must not keep others from it.
_SLOT_LIMIT: Final = 10.0


@final
class Start:
    """Made and run once in the starter's greenlet, which may be killed in it.

    ``candidate`` is the instance once it has a process: then its own end is what counts as a
    death of the plugin, and without it the failed try is.
    """

    def __init__(
        self,
        identifier: str,
        settings: Settings,
        provision: Provision,
        slots: BoundedSemaphore,
        make: Callable[[Prepared], LocalInstance],
        tell: Progress,
    ) -> None:
        """``slots`` are those of the host's starts at once; ``tell`` hears of each step."""
        self.candidate: LocalInstance | None = None
        self._identifier = identifier
        self._provision = provision
        self._limit = settings.tidegate_start_limit
        self._slots = slots
        self._make = make
        self._tell = tell

    def run(self) -> LocalInstance:
        """A ready instance; TidegateError with the reason when there is none."""
        prepared = self._provision.prepare(self._identifier, self._tell)
        self._tell("start", "starting the plugin")
        end = SYSTEM_CLOCK.monotonic() + self._limit
        # Not earlier: who waits for the same environment to be built must not keep others out.
        with self._slots:
            instance = self._make(prepared)
            self._start_process(instance)
            ready = instance.wait_ready(min(self._limit, _SLOT_LIMIT))
        # The rest of its time without the slot: it waits, others may use the processor.
        if not ready and not instance.wait_ready(max(0.0, end - SYSTEM_CLOCK.monotonic())):
            raise self._too_late(instance)
        self._tell("ready", f"ready after {instance.ready_after:.2f} s")
        log.info(
            "plugin ready",
            plugin=self._identifier,
            pid=instance.pid,
            ms=round(instance.ready_after * 1000),
        )
        return instance

    def _start_process(self, instance: LocalInstance) -> None:
        # A candidate before it has a process: whoever stops the plugin meanwhile must find it.
        self.candidate = instance
        try:
            instance.start()
        except OSError as error:
            self.candidate = None
            raise PluginStartFailed(f"plugin failed to start: no process: {error}") from error
        except TidegateError:
            self.candidate = None
            raise

    def _too_late(self, instance: LocalInstance) -> PluginStartFailed:
        # Before it is killed: what it wrote until now is the reason, not what killing makes it
        # write.
        said = instance.last_words()
        instance.kill("it did not become ready in time")
        return PluginStartFailed(
            f"plugin failed to start: no heartbeat within {self._limit:g} s "
            f"(TIDEGATE_START_LIMIT): {said or 'it said nothing'}",
            limit=self._limit,
            stderr=said,
        )


@final
class Starter:
    """At most one start of a plugin at a time. Made and owned by its supervisor.

    ``attempt`` makes a :class:`Start` that reports to what it is given; ``pause`` says how long to
    wait before. ``done`` gets what is ready, ``failed`` the error and whether there was a process;
    it answers what everybody who waits is told. Both are called when nothing is on its way any
    more, so that either may begin anew.
    """

    def __init__(
        self,
        plugin: str,
        attempt: Callable[[Progress], Start],
        pause: Callable[[], float],
        done: Callable[[LocalInstance], None],
        failed: Callable[[TidegateError, bool], CallFailed],
    ) -> None:
        self.doing = "nothing was done yet"
        self._plugin = plugin
        self._attempt = attempt
        self._pause = pause
        self._done = done
        self._failed = failed
        self._outcome = AsyncResult()
        self._greenlet: gevent.Greenlet | None = None
        self._try: Start | None = None
        self._listeners: list[Progress] = []

    @property
    def running(self) -> bool:
        """Whether a start is on its way."""
        return self._greenlet is not None

    @property
    def candidate(self) -> LocalInstance | None:
        """The instance that is on its way, once there is one; stays when the start is killed."""
        return self._try.candidate if self._try is not None else None

    def begin(self) -> None:
        """Start, unless that is being done. Never waits."""
        if self._greenlet is None:
            self._outcome = AsyncResult()
            self._greenlet = gevent.spawn(self._run, self._outcome)

    def wait(self, progress: Progress | None) -> None:
        """:meth:`begin`, and wait for the end; CallFailed when it failed."""
        if progress is not None:
            self._listeners.append(progress)
        try:
            self.begin()
            self._outcome.get()
        finally:
            if progress is not None:
                self._listeners.remove(progress)

    def kill(self, reason: CallFailed) -> None:
        """End what is on its way; who waits for it gets ``reason``. Returns when it has ended."""
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is None:
            return
        greenlet.kill()
        # Told here and not by the greenlet: one that is killed before its first turn tells nobody.
        if not self._outcome.ready():
            self._outcome.set_exception(reason)

    def _run(self, outcome: AsyncResult) -> None:
        """Body of the greenlet: one try, then everybody who waits knows."""
        try:
            gevent.sleep(self._pause())
            self._try = self._attempt(self._tell)
            instance = self._try.run()
        except TidegateError as error:
            outcome.set_exception(self._ended(error))
        except Exception as error:
            log.exception("plugin cannot be started", plugin=self._plugin)
            failure = PluginStartFailed(f"internal error: {error!r}")
            outcome.set_exception(self._ended(failure))
        else:
            self._greenlet = self._try = None
            self._done(instance)
            outcome.set(None)

    def _ended(self, error: TidegateError) -> CallFailed:
        had_process = self.candidate is not None
        self._greenlet = self._try = None
        return self._failed(error, had_process)

    def _tell(self, step: str, message: str) -> None:
        self.doing = f"{step}: {message}"
        log.debug("plugin start", plugin=self._plugin, step=step, note=message)
        # A copy: whoever is told may leave.
        for listener in list(self._listeners):
            listener(step, message)
