"""How many sessions a tenant may have on this host, over all plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import final


@final
class Admission:
    """Counts sessions per tenant. One per host, used by its supervisors; nothing here waits.

    A supervisor with calls that wait for a tenant's slot leaves word with :meth:`remind` and is
    told when one comes free. With ``limit`` 0 nothing is counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}
        self._reminders: set[Callable[[], None]] = set()

    def may(self, tenant: str) -> bool:
        """Whether ``tenant`` may have one more session now."""
        return not self._limit or self._open.get(tenant, 0) < self._limit

    def entered(self, tenant: str) -> None:
        """A session of ``tenant`` was opened."""
        if self._limit:
            self._open[tenant] = self._open.get(tenant, 0) + 1

    def left(self, tenant: str) -> None:
        """A session of ``tenant`` ended: those who wait are told when it was at its limit."""
        if not self._limit:
            return
        count = self._open[tenant] - 1
        if count:
            self._open[tenant] = count
        else:
            # Tenants come and go by thousands.
            del self._open[tenant]
        # Only one that was at its limit can have somebody waiting.
        if count == self._limit - 1:
            # Taken out first: who is told and finds no room leaves word again.
            reminders, self._reminders = self._reminders, set()
            for remind in reminders:
                remind()

    def remind(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when a tenant that was at its limit has room. Must not wait."""
        self._reminders.add(callback)
