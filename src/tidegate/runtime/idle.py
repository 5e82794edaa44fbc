"""Connections that wait for their next request, and how they end when the api stops.

Gunicorn's gevent worker counts them as busy: a client with a connection pool (Dify's has a
hundred) would hold every stop and reload for the whole grace. So the worker's wait for a request
is ours: the same time-out as Gunicorn's, which can also be ended early.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, final

import gevent

#: A connection that has waited this long when the api stops is idle; one that was just opened
#: may have its request on the way.
IDLE_AFTER = 1.0


@final
class IdleConnections:
    """All waits of one worker. ``wait`` takes the place of the worker's ``timeout_ctx``."""

    def __init__(self, keepalive: float) -> None:
        self._keepalive = keepalive
        self._waits: set[_Wait] = set()

    def wait(self) -> _Wait:
        """Context of one wait for a request; ends silently when it took too long."""
        return _Wait(self._waits, self._keepalive)

    def close(self) -> None:
        """End the waits that are idle. Called again and again while the worker drains."""
        now = time.monotonic()
        for wait in [one for one in self._waits if now - one.since > IDLE_AFTER]:
            self._waits.discard(wait)
            wait.end()


@final
class _Wait:
    """One wait: a gevent.Timeout that is thrown early when the connection is idle."""

    __slots__ = ("_greenlet", "_timeout", "_waits", "since")

    def __init__(self, waits: set[_Wait], seconds: float) -> None:
        self._waits = waits
        self._timeout = gevent.Timeout(seconds, False)
        self._greenlet = gevent.getcurrent()
        self.since = time.monotonic()

    def __enter__(self) -> None:
        self._timeout.start()
        self._waits.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType
    ) -> Any:
        self._waits.discard(self)
        return self._timeout.__exit__(kind, value, trace)

    def end(self) -> None:
        """Have the time-out strike now. Called from another greenlet, for a wait that is left."""
        gevent.get_hub().loop.run_callback(self._strike)

    def _strike(self) -> None:
        # The request may have arrived since: then the wait is over and its time-out with it.
        if self._timeout.pending:
            self._greenlet.throw(self._timeout)
