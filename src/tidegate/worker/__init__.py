"""The worker role: Celery's application, its thin tasks and the schedule.

A task runs one job row and returns; what a job does stands in ``installs``. The broker may
deliver a message twice, late or never: the job's row decides (contract: jobs).
"""

from tidegate.worker.application import CLEAN, COLLECT, RECONCILE, RESUME, build_celery

__all__ = ["CLEAN", "COLLECT", "RECONCILE", "RESUME", "build_celery"]
