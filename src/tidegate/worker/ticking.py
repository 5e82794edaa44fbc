"""Celery's beat, made so that a second one does no harm: a tick is sent by whoever claims it."""

from __future__ import annotations

from typing import Any, Final, final

from celery.beat import ScheduleEntry, Scheduler

from tidegate.errors import StorageUnavailable
from tidegate.settings import Settings
from tidegate.storage import Database, ticks
from tidegate.telemetry.logs import get_log

log = get_log("worker")

SECOND_BEAT: Final = "another beat is at work: this one idles until that one ends"


def scheduler_for(settings: Settings) -> type[Scheduler]:
    """The scheduler class for ``beat_scheduler``. Opens nothing until the first tick is due."""

    @final
    class TickScheduler(Scheduler):  # type: ignore[misc]
        """In memory, as Celery's own; each tick is claimed in the database first."""

        def __init__(self, *args: Any, **rest: Any) -> None:
            self._database = Database(settings)
            self._idle = False
            super().__init__(*args, **rest)

        def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
            """Called by beat's loop for an entry that is due."""
            if self._is_ours(entry):
                super().apply_entry(entry, producer=producer)

        def close(self) -> None:
            """Called when beat ends."""
            super().close()
            self._database.dispose()

        def _is_ours(self, entry: ScheduleEntry) -> bool:
            every = entry.schedule.run_every.total_seconds()
            try:
                with self._database.write() as conn:
                    # A transaction of its own, committed before the message goes out: a beat that
                    # dies in between costs one tick, the other order could send two.
                    ours = ticks.claim(conn, entry.name, every)
            # An exception here ends beat. A tick that is left out is made good by the next one.
            except StorageUnavailable as error:
                log.warning("tick left out", tick=entry.name, reason=error.message)
                return False
            # Said when it changes, not at every tick of every entry.
            if self._idle is ours:
                self._idle = not ours
                log.info("beat acts" if ours else SECOND_BEAT, tick=entry.name)
            return ours

    return TickScheduler
