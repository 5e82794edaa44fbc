"""The Celery application of worker and beat: configuration, tasks, schedule.

One application for both, since nothing tells at import which of them it will be. What tasks work
with is loaded when a worker begins: beat only names tasks, and would carry 11 MiB for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery import Celery, signals

from tidegate.jobs import RUN_JOB, UPKEEP, celery_settings
from tidegate.settings import Settings
from tidegate.worker.ticking import scheduler_for

if TYPE_CHECKING:
    from tidegate.worker.services import HostOf, Services

RESUME: Final = "tidegate.schedule.resume"
CLEAN: Final = "tidegate.schedule.clean"
COLLECT: Final = "tidegate.schedule.collect"
RECONCILE: Final = "tidegate.schedule.reconcile"

_RESUME_EVERY: Final = 10.0
_CLEAN_EVERY: Final = 30.0
_COLLECT_EVERY: Final = 20.0
_RECONCILE_EVERY: Final = 60.0


def build_celery(settings: Settings, host_of: HostOf | None = None) -> Celery:
    """The application that ``celery_entrypoint`` names. Opens no file and no socket.

    ``host_of`` makes the worker's way to the host; by default the link.
    """
    # Made anew by each call, never a module's global: an import must not decide which settings
    # hold.
    app = Celery("tidegate")
    app.conf.update(celery_settings(settings))
    app.conf.update(_worker_settings(settings))
    _add_tasks(app, _services_when_needed(settings, host_of))
    return app


def _services_when_needed(settings: Settings, host_of: HostOf | None) -> Callable[[], Services]:
    @cache
    def services() -> Services:
        from tidegate.worker.services import Services

        made = Services(settings, host_of)
        signals.worker_ready.connect(made.begin, weak=False)
        signals.worker_shutting_down.connect(made.stop, weak=False)
        return made

    def load(**_: Any) -> None:
        """Before the guard's last look at all modules: connected earlier, so called earlier."""
        services()

    signals.worker_init.connect(load, weak=False)
    return services


def _worker_settings(settings: Settings) -> dict[str, Any]:
    return {
        "worker_concurrency": settings.celery_worker_amount,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # kept in memory: intervals only, and a shelf on disk breaks at an untimely end
        "beat_scheduler": scheduler_for(settings),
        "beat_schedule": {
            RESUME: _every(RESUME, _RESUME_EVERY),
            CLEAN: _every(CLEAN, _CLEAN_EVERY),
            COLLECT: _every(COLLECT, _COLLECT_EVERY),
            RECONCILE: _every(RECONCILE, _RECONCILE_EVERY),
        },
    }


def _every(task: str, seconds: float) -> dict[str, Any]:
    """Ticks do not pile up while there is no worker: each is void when the next one comes."""
    # Twice the same, for two readers: Celery drops what is too late when it takes it, the broker
    # while it lies there.
    options = {"queue": UPKEEP, "expires": seconds, "expiration": seconds}
    return {"task": task, "schedule": seconds, "options": options}


def _add_tasks(app: Celery, services: Callable[[], Services]) -> None:
    @app.task(name=RUN_JOB, shared=False)  # type: ignore[untyped-decorator]
    def run(job_id: str) -> None:
        """One job by its id; every delivery after the first finds nothing to do."""
        services().runner.run(job_id)

    @app.task(name=RESUME, shared=False)  # type: ignore[untyped-decorator]
    def resume() -> None:
        """Jobs that nobody works on are sent again."""
        services().runner.resume_abandoned()

    @app.task(name=CLEAN, shared=False)  # type: ignore[untyped-decorator]
    def clean() -> None:
        """Tasks and jobs that are over are forgotten."""
        services().runner.clean()

    @app.task(name=COLLECT, shared=False)  # type: ignore[untyped-decorator]
    def collect() -> None:
        """What nothing refers to any more is taken away."""
        services().runner.collect()

    @app.task(name=RECONCILE, shared=False)  # type: ignore[untyped-decorator]
    def reconcile() -> None:
        """What is installed and not built on this machine is built."""
        services().runner.reconcile()
