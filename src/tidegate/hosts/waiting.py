"""Calls that wait: for a plugin to be up, or for a session to come free.

One queue per tenant, served in turn: a tenant with a thousand calls delays another's by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, final

from tidegate.deadline import Deadline
from tidegate.errors import CallFailed, Overloaded, PluginStartFailed
from tidegate.hosts.deadlines import Deadlines
from tidegate.link import ServerCall
from tidegate.wire.heads import PluginHead

#: Words that Dify looks for when a plugin does not run.
NOT_FOUND: Final = "no available node, plugin runtime not found"
#: What a refused call is told to wait before it tries again, in seconds.
RETRY_AFTER: Final = 1


@final
class WaitingLine:
    """The line before one plugin's door. Owned by its entrance; nothing here waits.

    A call leaves it by :meth:`next` or :meth:`take`, by failing with the others, when its caller
    leaves, or when it has waited too long: for a start ``limit`` seconds (``explain`` says what
    the start is at), for a free session ``wait`` seconds; or its own time is over.
    """

    def __init__(
        self,
        limit: float,
        explain: Callable[[], str],
        *,
        wait: float = 5.0,
        size: int = 10_000,
    ) -> None:
        self._limit = limit
        self._explain = explain
        self._wait = wait
        self._size = size
        self._tenants: dict[str, dict[str, ServerCall]] = {}
        self._where: dict[str, str] = {}
        self._crowded: set[str] = set()
        self._patience = Deadlines(self._waited_too_long)

    def __len__(self) -> int:
        return len(self._where)

    def add(self, call: ServerCall, *, crowded: bool = False) -> None:
        """Put ``call`` at the end of its tenant's queue.

        ``crowded``: the plugin is up and has no session to give. Refused when its session id
        waits already, and when the line is full and its tenant has its share of it.
        """
        head = call.head
        assert isinstance(head, PluginHead)  # noqa: S101 - the host routes by this very type
        session = head.session
        if session in self._where:
            call.fail(CallFailed(f"session {session} is open already").as_json())
            return
        queue = self._tenants.get(head.tenant, {})
        # A full line takes a call of a tenant that has less than its share: one that floods fills
        # it, and must not keep everybody else out.
        if len(self._where) >= self._size and len(queue) * len(self._tenants) >= self._size:
            call.fail(_full(len(self._where)).as_json())
            return
        self._tenants.setdefault(head.tenant, queue)[session] = call
        self._where[session] = head.tenant
        if crowded:
            self._crowded.add(session)
        call.on_cancel = partial(self._left, session)
        self._patience.add(session, min(head.seconds, self._wait if crowded else self._limit))

    def next(self, may: Callable[[str], bool] = lambda tenant: True) -> ServerCall | None:
        """Whose turn it is among the tenants that ``may`` have a session; it leaves the line."""
        # No copy of the tenants: nobody goes on with the loop after a change.
        for tenant, queue in self._tenants.items():
            if not may(tenant):
                continue
            session, call = next(iter(queue.items()))
            # To the end of the round, with what is left of its queue.
            self._leave(session)
            if queue:
                self._tenants[tenant] = self._tenants.pop(tenant)
            call.on_cancel = None
            if not call.closed:
                return call
            return self.next(may)
        return None

    def take(self) -> list[ServerCall]:
        """Everybody who waits, one tenant after the other in turn; the line is empty then."""
        calls = []
        while (call := self.next()) is not None:
            calls.append(call)
        return calls

    def fail(self, error: CallFailed) -> None:
        """End everybody who waits with ``error``, in words that Dify looks for."""
        text = error.message
        # Dify looks for these words to tell "not running" from an error of the plugin.
        if NOT_FOUND not in text:
            text = f"{NOT_FOUND}: {text}"
        shown = type(error)(text, **error.details).as_json()
        for call in self.take():
            call.fail(shown)

    def close(self) -> None:
        """Give the timer back."""
        self._patience.close()

    def _left(self, session: str) -> None:
        self._leave(session)

    def _leave(self, session: str) -> ServerCall | None:
        tenant = self._where.pop(session, None)
        if tenant is None:
            return None
        self._patience.discard(session)
        self._crowded.discard(session)
        queue = self._tenants[tenant]
        call = queue.pop(session)
        if not queue:
            del self._tenants[tenant]
        return call

    def _waited_too_long(self, session: str) -> None:
        crowded = session in self._crowded
        call = self._leave(session)
        if call is None or not isinstance(call.head, PluginHead):
            return
        waited = self._wait if crowded else self._limit
        # Its own time is over, or it has waited as long as anybody may: two errors with two
        # remedies.
        error: CallFailed = Deadline(0.0, call.head.seconds, call.head.owner).error()
        if call.head.seconds > waited:
            error = self._no_session() if crowded else self._no_start(call.head)
        call.fail(error.as_json())

    def _no_session(self) -> Overloaded:
        return Overloaded(
            f"no session came free within {self._wait:g} s (TIDEGATE_ADMISSION_WAIT)",
            retry_after=RETRY_AFTER,
        )

    def _no_start(self, head: PluginHead) -> PluginStartFailed:
        return PluginStartFailed(
            f"{NOT_FOUND}: {head.plugin} did not become ready within {self._limit:g} s "
            f"(TIDEGATE_START_LIMIT): {self._explain()}",
            limit=self._limit,
        )


def _full(waiting: int) -> Overloaded:
    return Overloaded(
        f"{waiting} calls wait for this plugin already (TIDEGATE_ADMISSION_QUEUE)",
        retry_after=RETRY_AFTER,
    )
