"""One try to bring a plugin up: prepare it, start its process, wait until it is ready.

prepare --> slot --> process --heartbeat--> ready
   |          |         +--exit, or the start limit--> PluginStartFailed, with its last words
   +--no package, no build--> the reason
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from gevent.lock import BoundedSemaphore

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments import Progress
from tidegate.errors import PluginStartFailed, TidegateError
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
    """Made and run once by the supervisor's starter greenlet, which may be killed in it.

    ``candidate`` is the instance once it has a process: then its own end is what counts as a
    death of the plugin, and without it the failed try is.
    """

    def __init__(
        self,
        identifier: str,
        settings: Settings,
        slots: BoundedSemaphore,
        make: Callable[[Prepared], LocalInstance],
        tell: Progress,
    ) -> None:
        """``slots`` are those of the host's starts at once; ``tell`` hears of each step."""
        self.candidate: LocalInstance | None = None
        self._identifier = identifier
        self._limit = settings.tidegate_start_limit
        self._slots = slots
        self._make = make
        self._tell = tell

    def run(self, provision: Provision) -> LocalInstance:
        """A ready instance; TidegateError with the reason when there is none."""
        prepared = provision.prepare(self._identifier, self._tell)
        self._tell("start", "starting the plugin")
        end = SYSTEM_CLOCK.monotonic() + self._limit
        with self._slots:
            instance = self._make(prepared)
            self._start_process(instance)
            ready = instance.wait_ready(min(self._limit, _SLOT_LIMIT))
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
        said = instance.last_words()
        instance.kill("it did not become ready in time")
        return PluginStartFailed(
            f"plugin failed to start: no heartbeat within {self._limit:g} s "
            f"(TIDEGATE_START_LIMIT): {said or 'it said nothing'}",
            limit=self._limit,
            stderr=said,
        )
