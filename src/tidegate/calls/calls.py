"""Opening calls: sessions of plugins, and control calls to the host itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import msgspec

from tidegate.calls.keeper import Keeper
from tidegate.calls.output_rules import OutputRules
from tidegate.calls.stream import Stream
from tidegate.deadline import Budget, Deadline
from tidegate.link import LinkClient
from tidegate.runtime import home
from tidegate.settings import Settings
from tidegate.wire.heads import HostHead, PluginHead
from tidegate.wire.pieces import Pieces


@final
@dataclass(frozen=True, slots=True)
class PluginCall:
    """One request to a plugin, as a door hands it over.

    ``line`` is the complete line for the plugin's standard input, without newline
    (:func:`tidegate.wire.session.request_line`); ``session`` is the id that stands in it.
    ``user``, ``trace`` and ``depth`` are for its back-calls (wire/heads).
    """

    identifier: str
    plugin_id: str
    type: str
    action: str
    tenant: str
    session: str
    line: bytes | Pieces
    deadline: Deadline
    rules: OutputRules | None = None
    user: str = ""
    trace: str = ""
    depth: int = 0


@final
class Calls:
    """Opens calls over the link. One per api or worker process.

    ``on_notice`` gets each notice of the host (``{"generation": n}``); it must not wait.
    """

    def __init__(
        self, settings: Settings, *, on_notice: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self._settings = settings
        self._notice = on_notice
        self._budget = Budget(settings.tidegate_call_memory, settings.tidegate_call_spool)
        self._spool_folder = settings.home.run / "spool"
        self._link = LinkClient(
            settings.tidegate_link_host or home.link_socket(settings),
            key=home.link_key(settings),
            on_notice=self._noticed,
        )
        self._keeper = Keeper(self._link)

    @property
    def connected(self) -> bool:
        """Whether the link stands, so that notices arrive."""
        return self._link.connected

    @property
    def late_frames(self) -> int:
        """Frames of calls that were over already; for metrics."""
        return self._link.late_frames

    def start(self) -> None:
        """Keep the link up from now on: notices arrive without a call, and a call that finds the
        host away waits a moment for it. Idempotent.
        """
        self._keeper.start()

    def stop(self) -> None:
        """Close the link; open calls end with HostLost."""
        self._keeper.stop()
        self._link.close()

    def plugin(self, call: PluginCall) -> Stream:
        """Open a session. HostLost when no host answers. The caller must close the stream."""
        # Before the head: it tells the host what is left of the deadline after this.
        self._keeper.wait(call.deadline.remaining())
        stream = Stream(
            call.deadline,
            self._budget,
            rules=call.rules,
            spool_folder=self._spool_folder,
            idle_seconds=self._settings.tidegate_call_idle,
        )
        head = PluginHead(
            plugin=call.identifier,
            session=call.session,
            type=call.type,
            action=call.action,
            tenant=call.tenant,
            seconds=call.deadline.remaining(),
            owner=call.deadline.owner,
            user=call.user,
            trace=call.trace,
            depth=call.depth,
        )
        return self._open(head, call.line, stream)

    def host(self, op: str, params: dict[str, Any], deadline: Deadline) -> Iterator[dict[str, Any]]:
        """A control call: yields the host's progress, raises CallFailed when it failed."""
        # No idle limit and no rules: how long a host may be silent over a build is the deadline's
        # business.
        stream = self.control(op, params, deadline)
        try:
            while bodies := stream.take():
                for body in bodies:
                    for line in body.split(b"\n"):
                        yield msgspec.json.decode(line)
        finally:
            stream.close()

    def control(self, op: str, params: dict[str, Any], deadline: Deadline) -> Stream:
        """A control call whose answers are handed on as bytes. HostLost when no host answers.

        The caller must close the stream.
        """
        self._keeper.wait(deadline.remaining())
        head = HostHead(op, params, seconds=deadline.remaining(), owner=deadline.owner)
        return self._open(head, b"", Stream(deadline, self._budget))

    def _open(self, head: PluginHead | HostHead, payload: bytes | Pieces, stream: Stream) -> Stream:
        try:
            # The stream exists before the call: its timer runs from here on, and a host that
            # answers at once finds somebody to push to.
            stream.attach(self._link.open(head, payload, stream))
        # Also for a greenlet that is killed while it waits for the link: the stream holds a timer
        # of the loop.
        except BaseException:
            stream.close()
            raise
        return stream

    def _noticed(self, body: bytes) -> None:
        if self._notice is not None:
            self._notice(msgspec.json.decode(body))
