"""What the host asks of a running plugin, whatever it runs in.

    NEW --start--> STARTING --heartbeat--> READY --drain--> DRAINING --empty, or grace--> GONE
                       |                     |                  |
                       +-- exit, time-out ---+----- exit -------+-----------------------> FAILED

One greenlet of the supervisor starts and stops an instance; the link's readers open sessions in
it. Everything that it owns - pipes, sessions, deadlines - is touched by its own greenlets and by
callbacks of the hub, never under a lock.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from tidegate.errors import CallFailed, IllegalTransition
from tidegate.hosts.session_table import SessionTable
from tidegate.link import ServerCall


class State(enum.Enum):
    """Where an instance is in its life. GONE and FAILED are final."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"
    FAILED = "failed"


TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    # GONE at once: stopped before it had a process.
    State.NEW: frozenset({State.STARTING, State.GONE}),
    # DRAINING without READY: stopped while it starts, with its heartbeat still to come.
    State.STARTING: frozenset({State.READY, State.DRAINING, State.GONE, State.FAILED}),
    State.READY: frozenset({State.DRAINING, State.GONE, State.FAILED}),
    State.DRAINING: frozenset({State.GONE, State.FAILED}),
    State.GONE: frozenset(),
    State.FAILED: frozenset(),
}


def check_transition(old: State, new: State) -> None:
    """IllegalTransition unless ``new`` may follow ``old``."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"an instance cannot become {new.value} when it is {old.value}")


class Instance(Protocol):
    """One running plugin. Ends exactly once; what it was serving then ends with it, typed.

    ``table`` holds its sessions, and what is known of their progress.
    """

    table: SessionTable

    @property
    def state(self) -> State:
        """Where it is in its life."""

    @property
    def load(self) -> int:
        """Sessions that are open."""

    @property
    def usable(self) -> bool:
        """Whether it takes sessions now. Calls go to the usable instance with the fewest."""

    def start(self) -> None:
        """Begin to run. Called once, by the supervisor's greenlet; OSError when it cannot."""

    def wait_ready(self, seconds: float) -> bool:
        """Wait for readiness, the end or ``seconds``, whichever comes first.

        Called by the supervisor's greenlet, more than once when it likes. True when ready; raises
        PluginStartFailed when it ended before that; False when the time is over.
        """

    def open(self, call: ServerCall) -> bool:
        """Begin a session: route its output to ``call`` and hand ``call.payload`` to the plugin.

        Called by the supervisor, in a reader of the link: never waits, never raises. False when
        the instance cannot take it any more and has not touched it. Else the call ends exactly
        once: by the plugin, by its deadline, by its caller, or because the instance ended. What
        holds slots (supervisor, admission) hears of that by ``call.on_over``; leave it alone.
        """

    def drain(self, grace: float) -> None:
        """Wait until no session is open, ``grace`` seconds at most, then :meth:`stop`.

        Called by a greenlet of the supervisor that has stopped routing to it.
        """

    def stop(self, reason: CallFailed | None = None) -> None:
        """End it: ask, wait the stop grace, kill. Sessions still open fail with ``reason``.

        Called by the supervisor; returns when nothing of it is left. Idempotent.
        """
