"""Sending work to the worker, and the broker that needs no server.

``broker`` says which broker there is, ``Sender`` puts jobs on it by name. The embedded one is a
kombu transport (``transport``) on an SQLite file (``queue_file``); who holds which message is
known by file locks (``owners``).
"""

from tidegate.jobs.broker import INSTALLS, UPKEEP, celery_settings
from tidegate.jobs.sender import JobSender, Sender

__all__ = ["INSTALLS", "UPKEEP", "JobSender", "Sender", "celery_settings"]
