"""The one rule of SQLite here: no greenlet switch inside a write transaction.

Whoever waits while it holds SQLite's only write lock makes every other *process* wait, and the
greenlets of its own process queue behind it (measured: decisions.md section B). The guard asks
the hub to run a callback. The hub gets to it only if the transaction's greenlet lets go of the
processor; then :class:`tidegate.errors.SwitchedInTransaction` is raised in that greenlet, at the
very line where it waits. Costs under a microsecond per transaction.
"""

from __future__ import annotations

from typing import Any, final

import gevent
from gevent import monkey

from tidegate.errors import SwitchedInTransaction


@final
class SwitchGuard:
    """Armed after BEGIN, disarmed before COMMIT or ROLLBACK; one per connection."""

    def __init__(self) -> None:
        self._callback: Any = None
        self._switched = False

    def arm(self) -> None:
        """From here on a switch is an error. Does nothing where no hub runs (command line)."""
        self._switched = False
        if monkey.is_module_patched("threading"):
            owner = gevent.getcurrent()
            self._callback = gevent.get_hub().loop.run_callback(self._caught, owner)

    def disarm(self) -> None:
        """The transaction ends: switching is allowed again."""
        if self._callback is not None:
            self._callback.stop()
            self._callback = None

    def check(self) -> None:
        """Called before COMMIT; raises again what the code inside may have swallowed."""
        if self._switched:
            raise _error()

    def _caught(self, owner: Any) -> None:
        # Runs in the hub, so the owner is suspended right now.
        self._switched = True
        # At the line that waits, so that the traceback names the culprit, and not the commit that
        # would have been late.
        owner.throw(_error())


def _error() -> SwitchedInTransaction:
    return SwitchedInTransaction(
        "a greenlet waited inside a SQLite write transaction: "
        "do the waiting before it begins or after it ends"
    )
