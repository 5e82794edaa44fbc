"""Sending work to the worker, and the broker that needs no server.

``broker`` says which broker there is, ``Sender`` puts jobs on it by name. The embedded one is a
kombu transport (``transport``) on an SQLite file (``queue_file``); who holds which message is
known by file locks (``owners``), and so is whose jobs are nobody's any more.
"""

import sys

from tidegate.jobs.broker import INSTALLS, RUN_JOB, UPKEEP, celery_settings
from tidegate.jobs.owners import Owners
from tidegate.jobs.sender import JobSender, Sender

__all__ = [
    "INSTALLS",
    "RUN_JOB",
    "UPKEEP",
    "JobSender",
    "Owners",
    "Sender",
    "celery_settings",
    "stop_waiting",
]


def stop_waiting() -> None:
    """The worker stops: its consumer of the embedded broker looks up at once.

    Called from a signal's handler; never waits. Does nothing with another broker.
    """
    loaded = sys.modules.get("tidegate.jobs.transport")  # kombu loads it where it is the broker
    if loaded is not None:
        loaded.Transport.stop_waiting()
