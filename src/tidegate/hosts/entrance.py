"""Who gets a session of one plugin now, who waits for one, and who is told to come again.

    call --room and nobody waits--> begin
         --else--> the waiting line, in turn of tenants --room--> begin
                                     +--waited too long, or the line is full--> Overloaded

The same for a plugin as a process, at its developer's and as a function. Three caps hold: an
instance's (``free``), the plugin's (TIDEGATE_PLUGIN_SESSIONS) and the tenant's (``Admission``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from gevent import get_hub

from tidegate.errors import CallFailed
from tidegate.hosts.admission import Admission
from tidegate.hosts.waiting import WaitingLine
from tidegate.link import ServerCall
from tidegate.settings import Settings


@final
class Entrance:
    """The way into one plugin. Made by who runs it: supervisor, connection, serverless.

    Runs in the link's readers and in the hub: never waits, never raises. A session counts from
    ``begin`` until its call is over, whoever ended it.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        *,
        begin: Callable[[ServerCall], bool],
        free: Callable[[], bool],
        explain: Callable[[], str] = str,
    ) -> None:
        """``begin`` hands a call to an instance, False when none takes it; ``free`` says whether
        one has a session to give; ``explain`` what a start is at. ``settings`` are the plugin's.
        """
        self.sessions = 0
        self._most = settings.tidegate_plugin_sessions
        self._admission = admission
        self._begin = begin
        self._free = free
        self._line = WaitingLine(
            settings.tidegate_start_limit,
            explain,
            wait=settings.tidegate_admission_wait,
            size=settings.tidegate_admission_queue,
        )
        self._pump_asked = False

    @property
    def waiting(self) -> int:
        """Calls that wait for the plugin to be up, or for a session."""
        return len(self._line)

    def admit(self, call: ServerCall) -> bool:
        """Give ``call`` a session. False, and untouched, when it has to wait for one."""
        # Not past those who wait already, though there be room: a slot that just came free is
        # theirs.
        return not self._line and self._admit(call)

    def wait(self, call: ServerCall, *, crowded: bool) -> None:
        """Have ``call`` wait: for a session where it is ``crowded``, else for the plugin's start.

        Who waits for a start is let in by :meth:`pump`.
        """
        self._line.add(call, crowded=crowded)
        if crowded:
            self.pump()

    def pump(self) -> None:
        """Let in who waits, as long as there are sessions to give."""
        self._pump_asked = False
        while self._line and self._has_room() and self._free():
            call = self._line.next(self._admission.may)
            if call is None:
                # Room here, but each tenant in line has its share of the host: one of them must
                # leave first.
                self._admission.remind(self._ask_pump)
                return
            if not self._admit(call):
                # Its instance broke just now: back into the line, until the next is up.
                self._line.add(call, crowded=True)
                return

    def fail(self, error: CallFailed) -> None:
        """End everybody who waits with ``error``."""
        self._line.fail(error)

    def close(self) -> None:
        """Nobody comes any more; who still waited was failed before."""
        self._line.close()

    def _admit(self, call: ServerCall) -> bool:
        tenant = call.head.tenant  # type: ignore[union-attr]
        if not (self._has_room() and self._admission.may(tenant)):
            return False
        # Counted first: a call that fails within ``begin`` is over within it.
        self.sessions += 1
        self._admission.entered(tenant)
        call.on_over = self._over
        if self._begin(call):
            return True
        call.on_over = None
        self.sessions -= 1
        self._admission.left(tenant)
        return False

    def _has_room(self) -> bool:
        return not self._most or self.sessions < self._most

    def _over(self, call: ServerCall) -> None:
        self.sessions -= 1
        self._admission.left(call.head.tenant)  # type: ignore[union-attr]
        if self._line:
            self._ask_pump()

    def _ask_pump(self) -> None:
        # Not here: this may be the middle of an instance's own work on its sessions.
        if not self._pump_asked:
            self._pump_asked = True
            get_hub().loop.run_callback(self.pump)
