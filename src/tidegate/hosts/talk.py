"""What a plugin says apart from its answers: readiness, logs, noise, back-calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from tidegate.backcalls import BackCall, Target
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.writer import Writer
from tidegate.telemetry.logs import get_log
from tidegate.wire.session import UNREADABLE, backwards_line, decode_invoke

log = get_log("hosts")

_LEVELS: Final = {"warn": "warning", "fatal": "error", "critical": "error"}


@final
class Talk:
    """Listener of one process's sessions (wire/sessions). Called by its reader: never waits."""

    def __init__(
        self,
        plugin: str,
        plugin_log: PluginLog,
        *,
        ready: Callable[[], None],
        tenant_of: Callable[[str], str | None],
        target: Target,
    ) -> None:
        self._plugin = plugin
        self._log = plugin_log
        self._ready = ready
        self._tenant_of = tenant_of
        self._target = target
        self._heard_from = False
        self.writer: Writer | None = None

    def heartbeat(self) -> None:
        """Alive; the first one means ready."""
        if not self._heard_from:
            self._heard_from = True
            self._ready()

    def log(self, level: str, message: str) -> None:
        """A log line of the SDK, or its complaint about a line of ours."""
        name = level.lower()
        self._log.write(_LEVELS.get(name, name[:16]), message)

    def noise(self, text: bytes) -> None:
        """``print()`` and the like."""
        self._log.write("stdout", text)

    def invoke(self, session_id: str, request: bytes) -> None:
        """A back-call: handed to the target, or refused when it cannot be read."""
        writer = self.writer
        if writer is None:
            return
        try:
            invoke = decode_invoke(request)
        except UNREADABLE as error:
            self._log.write("error", f"back-call that cannot be read: {error}")
            return
        call = BackCall(
            self._plugin,
            session_id,
            self._tenant_of(session_id),
            invoke.backwards_request_id,
            invoke.type,
            bytes(invoke.request),
        )
        self._target.invoke(call, _Answer(writer, session_id, invoke.backwards_request_id))


@final
class _Answer:
    """Writes the lines of one answer to the plugin's standard input."""

    __slots__ = ("_ended", "_request_id", "_session_id", "_writer")

    def __init__(self, writer: Writer, session_id: str, request_id: str) -> None:
        self._writer = writer
        self._session_id = session_id
        self._request_id = request_id
        self._ended = False

    def respond(self, data: bytes) -> None:
        self._send("response", message="stream", data=data)

    def fail(self, message: str) -> None:
        self._send("error", message=message)
        self.end()

    def end(self) -> None:
        self._send("end")
        self._ended = True

    def _send(self, event: str, *, message: str = "", data: bytes = b"null") -> None:
        if self._ended:
            return
        line = backwards_line(self._session_id, self._request_id, event, message=message, data=data)
        if not self._writer.send(line):
            log.warning("answer to a back-call dropped: plugin does not read its standard input")
