"""Switch fuzzing (T-G4): by seed, a greenlet gives way at points where it need not.

    TIDEGATE_TEST_SWITCHES=7 python -m gevent.monkey --module pytest -p tests.faults.switching ...

Order bugs hide where two greenlets happen to run in one order. Each primitive below may switch in
reality; here it sometimes does so where it would not, before it acts. The seed repeats a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.queue
import gevent.socket

SHARE = 0.25
_dice = random.Random(int(os.environ.get("TIDEGATE_TEST_SWITCHES", "1")))
switched = 0

#: Where the real thing may let others run. Setters are none: who sets need not wait.
POINTS = (
    (gevent.event.Event, "wait"),
    (gevent.event.AsyncResult, "get"),
    (gevent.queue.SimpleQueue, "get"),
    (gevent.queue.Queue, "put"),
    (gevent.socket.socket, "recv"),
    (gevent.socket.socket, "sendall"),
    (gevent.socket.socket, "send"),
    (gevent.socket.socket, "sendmsg"),
)


def pytest_configure() -> None:
    """Wrap the points. Called by pytest when this module is named with ``-p``."""
    for owner, name in POINTS:
        try:
            setattr(owner, name, _fuzzed(getattr(owner, name)))
        except TypeError:
            continue  # compiled, and closed to changes


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how often it happened, so that a run that fuzzed nothing is seen."""
    terminalreporter.write_line(f"switches: {switched}")


def _fuzzed(real: Callable[..., Any]) -> Callable[..., Any]:
    def fuzzed(*args: Any, **kwargs: Any) -> Any:
        global switched
        if gevent.getcurrent() is not gevent.get_hub() and _dice.random() < SHARE:
            switched += 1
            gevent.sleep(0)
        return real(*args, **kwargs)

    return fuzzed
