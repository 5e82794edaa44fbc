"""What installs asks of the host: a Protocol, so that neither knows the other.

| op | params | progress |
|---|---|---|
| ``install`` | ``identifier`` | ``{"step", "message"}``: unpack, environment, start, ready |
| ``prepare`` | ``identifier`` | the first two steps of install, then ``{"built"}``: was it needed |
| ``stop`` | ``identifier`` | anything; ends when the plugin's calls are over and it is gone |
| ``remove`` | ``identifier`` | anything; working folder and environment are gone then |
| ``changed`` | ``generation`` | nothing; the host tells every api process |

All of them may be repeated, and ``install`` of what is built and probed is quick. Concurrent
``install`` of one identifier are one build.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, final

from tidegate.calls import Calls
from tidegate.deadline import Deadline
from tidegate.errors import TidegateError
from tidegate.telemetry.logs import get_log

log = get_log("installs")

_ANNOUNCE_SECONDS = 5.0


class HostControl(Protocol):
    """The host, reached somehow: over the link, or in the same process (tests)."""

    def run(self, op: str, params: dict[str, Any], deadline: Deadline) -> Iterator[dict[str, Any]]:
        """Carry ``op`` out, yielding its progress.

        Raises HostLost when no host answers (try again), another CallFailed when it failed.
        """
        ...


@final
class LinkedHost:
    """The host at the other end of this process's link."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def run(self, op: str, params: dict[str, Any], deadline: Deadline) -> Iterator[dict[str, Any]]:
        """See :class:`HostControl`."""
        return self._calls.host(op, params, deadline)


def announce(host: HostControl, generation: int) -> None:
    """Tell every process that installations changed. Called after the commit, never raises.

    Whoever does not hear it looks by itself within a second.
    """
    # In the background, but not for ever: a host that hangs would gather a greenlet for each
    # change.
    deadline = Deadline.after(_ANNOUNCE_SECONDS, "announcement")
    try:
        for _ in host.run("changed", {"generation": generation}, deadline):
            pass
    except TidegateError as error:
        log.debug("change not announced", generation=generation, error=error.message)
