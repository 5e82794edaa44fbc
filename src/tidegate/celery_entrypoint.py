"""The Celery application of worker and beat: ``celery -A tidegate.celery_entrypoint.celery``.

Patches third parties before the application is imported, if gevent patched the standard library;
the guards of ``runtime/celery_guards.py`` then refuse a worker or a beat that is not what it
claims to be.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from tidegate.runtime import celery_guards

_settings = celery_guards.begin()


def _build() -> Any:
    from tidegate.runtime import launcher
    from tidegate.worker import build_celery

    with launcher.refusals_end_the_process():
        return build_celery(_settings)


@signals.setup_logging.connect(weak=False)
def _setup_logging(**_: Any) -> None:
    """Celery's records go where ours go, in the same shape."""
    from tidegate.telemetry.logs import configure_logging

    configure_logging(_settings)


celery = _build()
celery_guards.accept(celery, _settings)
