"""A locked SQLite file, waited for in gevent. Imports nothing of ours and no SQLAlchemy.

SQLite's own busy handler sleeps in C and stops every greenlet of the process, so both of our files
(rows, broker) switch it off and are tried again here.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable


def is_locked(error: BaseException | None) -> bool:
    """Whether another connection holds the lock: the one error that is worth a retry."""
    # The low byte: extended codes say why (BUSY_SNAPSHOT, BUSY_RECOVERY), which changes nothing.
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: BaseException | None) -> bool:
    """Whether there is no room for the file to grow."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL


def patiently[T](action: Callable[[], T], patience: float) -> T:
    """Run ``action``, again while the file is locked, for ``patience`` seconds at most."""
    end = time.monotonic() + patience
    pause = 0.0005
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise
        # Spread, or writers that met once meet again after each pause.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        pause = min(pause * 2, 0.02)
