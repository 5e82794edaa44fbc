"""How many processes a plugin has: one more while calls wait or all are busy, fewer when idle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

from tidegate.hosts.local import LocalInstance
from tidegate.hosts.supervisor import Supervisor
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")


@final
class Scaling:
    """One per host, owned by ``care``. ``busy_since``: monotonic seconds since when an instance
    has worked at full speed; 0 when it does not."""

    def __init__(self, busy_since: Callable[[LocalInstance], float]) -> None:
        self._busy_since = busy_since
        self._waiting_since: dict[Supervisor, float] = {}

    def forget_others(self, supervisors: Iterable[Supervisor]) -> None:
        """Only these are left: one that was stopped while calls waited is looked at no more."""
        known = self._waiting_since
        self._waiting_since = {one: known[one] for one in supervisors if one in known}

    def adjust(self, supervisor: Supervisor, now: float) -> None:
        """Start one more instance, or let some go. Called at each look at a plugin."""
        pool = supervisor.pool
        if supervisor.waiting and pool:
            since = self._waiting_since.setdefault(supervisor, now)
        else:
            self._waiting_since.pop(supervisor, None)
            since = now
        if not pool or supervisor.starting:
            return
        settings = supervisor.settings
        room = len(pool) < settings.tidegate_instances_max
        if room and (
            now - since > settings.tidegate_scale_wait or self._all_busy(supervisor, settings, now)
        ):
            supervisor.more("calls wait, or all instances are busy")
        elif not supervisor.waiting:
            self._shrink(supervisor, settings, now)

    def _all_busy(self, supervisor: Supervisor, settings: Settings, now: float) -> bool:
        """Every instance works at full speed, and some have more than one session for it."""
        pool = supervisor.pool
        if sum(one.load for one in pool) <= len(pool):
            return False
        since = [self._busy_since(one) for one in pool]
        return all(one and now - one >= settings.tidegate_scale_wait for one in since)

    def _shrink(self, supervisor: Supervisor, settings: Settings, now: float) -> None:
        pool = supervisor.pool
        idle = [one for one in pool if not one.load]
        plugin_id = supervisor.identifier.partition(":")[0]
        stop = settings.tidegate_idle_stop
        pinned = not stop or plugin_id in settings.tidegate_pinned
        if not pinned and all(not one.load and now - one.table.idle_since > stop for one in pool):
            log.info("idle plugin stopped", plugin=supervisor.identifier)
            for one in idle:
                supervisor.retire(one)
            return
        # The newest first: of idle ones a call goes to the oldest, which so stays warm.
        for one in reversed(idle):
            if len(pool) <= settings.tidegate_instances_min:
                return
            if now - one.table.idle_since > settings.tidegate_scale_idle:
                supervisor.retire(one)
