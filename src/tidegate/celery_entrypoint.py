"""The Celery application of worker and beat: ``celery -A tidegate.celery_entrypoint.celery``.

Patches third parties before the application is imported, if gevent patched the standard library;
the guards of ``runtime/celery_guards.py`` then refuse a worker or a beat that is not what it
claims to be.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

from tidegate.runtime import boot, celery_guards, launcher

_settings = celery_guards.begin()


def _build() -> Any:
    """The whole application in a patched process; elsewhere the broker's settings only.

    An unpatched process can ask (``celery inspect``) but never be worker or beat, so it gets no
    tasks, and is refused before a second went into imports.
    """
    with launcher.refusals_end_the_process():
        if boot.stage() is boot.Stage.NEW:
            from tidegate.jobs import celery_settings

            # A beat would open its default schedule file before it is refused.
            scheduler = {"beat_scheduler": "celery.beat:Scheduler"}
            return Celery("tidegate", changes={**celery_settings(_settings), **scheduler})
        from tidegate.worker import build_celery

        return build_celery(_settings)


def _setup_logging(**_: Any) -> None:
    """Celery's records go where ours go, in the same shape."""
    from tidegate.telemetry.logs import configure_logging

    configure_logging(_settings)


signals.setup_logging.connect(_setup_logging, weak=False)
celery = _build()
celery_guards.accept(celery, _settings)
