"""Celery applications that are not the one of the entry, or that are and were changed."""

from __future__ import annotations

import os

from celery import Celery

from tidegate.celery_entrypoint import celery

other = Celery("other", broker="memory://")
other.conf.beat_scheduler = "celery.beat:Scheduler"  # no schedule file in the folder
if os.environ.get("PROBE_WORKER_POOL"):
    celery.conf.worker_pool = os.environ["PROBE_WORKER_POOL"]
same = celery
