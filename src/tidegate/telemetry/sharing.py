"""One process's part in the metrics of all: it writes its own, and reads the others' (ADR 13).

    sharing = Sharing(settings.home.run / snapshots.FOLDER, "api", own_readings)
    sharing.start()            # from now on the others see what this process counts
    sharing.show()             # everybody's as text, this process's as of now

Counting itself stays plain arithmetic: nothing here runs per call, only once a second.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, final

import gevent

from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.snapshots import OwnFile, Snapshot, Totals, read_others

log = get_log("metrics")

#: Seconds that the others' view may be behind, and that a killed process may lose.
EVERY: Final = 1.0


@final
class Sharing:
    """Once per process of api and worker. ``readings``: counters that rooms keep by themselves."""

    def __init__(
        self,
        folder: Path,
        role: str,
        readings: Callable[[], Iterable[metrics.Reading]] = tuple,
    ) -> None:
        self._folder = folder
        self._role = role
        self._readings = readings
        self._file: OwnFile | None = None
        self._broken = False

    def start(self) -> None:
        """Write from now on, every second in which something changed, and at the end.

        Called once, in the process that counts (after the last fork), before it serves.
        """
        try:
            self._file = OwnFile(self._folder, self._role)
        except OSError as error:  # metrics are not worth a role that does not start
            log.warning("metrics are not shared", role=self._role, error=str(error))
            return
        atexit.register(self.write)
        gevent.spawn(self._keep_writing)

    def write(self) -> None:
        """Write now what changed. At exit it must not go through the hub, which may be gone."""
        self._write(_write_or_error)

    def show(self, elsewhere: Sequence[metrics.Reading] = ()) -> bytes:
        """The text that /metrics/ serves: what this process counted until now and the others
        until their last snapshot, then ``elsewhere``. Waits, and lets everybody else run: with
        hundreds of plugins the text alone takes a third of a second.
        """
        # Here and not in the thread: counters are not made for being read while they change.
        own = metrics.snapshot(self._readings())
        name = self._file.name if self._file else ""
        work = (own, self._folder, name, elsewhere)
        text: bytes = gevent.get_hub().threadpool.apply(_show, work)
        return text

    def _keep_writing(self) -> None:
        while True:
            gevent.sleep(EVERY)
            # Not when something changed: under load that is always, and a second is fresh enough.
            self._write(_write_aside)

    def _write(self, by: Callable[[OwnFile, bytes], OSError | None]) -> None:
        file = self._file
        if file is None:
            return
        data = file.changed(metrics.snapshot(self._readings()))
        if data is None:
            return
        error = by(file, data)
        if error is not None and not self._broken:  # a full disk is said once, not every second
            log.warning("metrics cannot be shared", role=self._role, error=str(error))
        self._broken = error is not None


def _write_aside(file: OwnFile, data: bytes) -> OSError | None:
    """In a native thread: a disk that stalls must not stop every stream."""
    error: OSError | None = gevent.get_hub().threadpool.apply(_write_or_error, (file, data))
    return error


def _write_or_error(file: OwnFile, data: bytes) -> OSError | None:
    """Answered, not raised: gevent prints what is raised in its threads."""
    try:
        file.write(data)
    except OSError as error:
        return error
    return None


def _show(own: Snapshot, folder: Path, name: str, elsewhere: Sequence[metrics.Reading]) -> bytes:
    """In a native thread: touches no counter, only what was taken from them."""
    totals = Totals()
    for one in (own, *read_others(folder, name)):
        totals.add(one.grown)
        totals.add(one.current)
    return metrics.render(elsewhere, totals)
