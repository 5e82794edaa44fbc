"""The sessions that are open in one plugin process, and what its output means for them.

Sans-IO: :meth:`Sessions.receive` takes what one read gave and says whose output changed. The
plugin's reader (hosts/local) feeds it and flushes; nobody else touches it.

    OPEN --error--> ENDED(error)      OPEN --end--> ENDED      OPEN --forget--> gone

A session ends once; what a plugin sends for a session that is not open (late, foreign, after its
end) is dropped and counted. A line that cannot be read costs the session that it names, or none
(spec/plugin/01 sections 2, 3, 7).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

from tidegate.errors import MessageTooLarge, ProtocolError
from tidegate.wire.lines import HEAD_KEPT, LineSplitter, OversizedLine, sift
from tidegate.wire.ports import Listener, Port
from tidegate.wire.recovery import MOST_ESCAPES, glued_events, with_whole_pairs
from tidegate.wire.session import (
    UNREADABLE,
    Event,
    Message,
    decode_event,
    decode_log,
    head_of,
    session_error,
)

#: More lines than these in one read are a flood, in which only what may be a message is decoded.
_FLOOD: Final = 8192
_MAY_BE_A_MESSAGE: Final = b'"event"'
#: What one read may cost the process that reads for everybody: lines that are no messages and are
#: looked into all the same, and texts that are handed on. A plugin's log takes no more either.
_MOST_UNREADABLE: Final = 8192
_LEAST_MESSAGE: Final = 64
_MOST_NOISE: Final = 1000
#: Longest error of a plugin in bytes: a traceback has some thousands.
_MOST_ERROR: Final = 1 << 20
_DAMAGED: Final = re.compile(rb'"event"\s*:\s*"session"')


@final
@dataclass(slots=True)
class SessionCounters:
    """Figures of one process."""

    lines: int = 0
    late: int = 0
    noise: int = 0
    damaged: int = 0


@final
class Sessions:
    """Open sessions of one process by id, and the reader's state. One greenlet's property."""

    __slots__ = (
        "_changed", "_clean", "_escapes", "_listener", "_noises", "_on_end", "_splitter", "_unread",
        "counters", "limit_setting", "ports",
    )  # fmt: skip

    def __init__(
        self,
        limit: int,
        listener: Listener,
        *,
        limit_setting: str = "PLUGIN_RUNTIME_MAX_BUFFER_SIZE",
        on_end: Callable[[str], None] = lambda session_id: None,
        clean: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """``on_end`` hears of each session that ends by what the plugin said; ``clean`` may take
        out of a plugin's own error what callers must not see."""
        self._splitter = LineSplitter(limit)
        self._listener = listener
        self.limit_setting = limit_setting
        self._on_end = on_end
        self._clean = clean
        self.ports: dict[str, Port] = {}
        self.counters = SessionCounters()
        self._changed: list[Port] = []
        # What is left of one read's allowances.
        self._noises = 0
        self._unread = 0
        self._escapes = MOST_ESCAPES

    def open(self, session_id: str, port: Port) -> None:
        """Route output of ``session_id`` to ``port``. Before its request line is written."""
        self.ports[session_id] = port

    def forget(self, session_id: str) -> None:
        """The caller left: what comes late is dropped. Idempotent."""
        self.ports.pop(session_id, None)

    def end_all(self, error: bytes) -> list[Port]:
        """The process is gone: every session ends with ``error``. Returns what to flush."""
        ports = list(self.ports.values())
        self.ports.clear()
        for port in ports:
            port.conclude(error)
        return ports

    def unsent(self) -> list[Port]:
        """What the last :meth:`receive` had changed when it failed, and so could not return."""
        return self._changed

    def receive(self, data: bytes) -> list[Port]:
        """Take what one read gave. Returns the ports whose output changed, each once or twice."""
        # Kept here as well: a session that ended in it has no other way to its flush any more.
        dirty: list[Port] = []
        self._changed = dirty
        block, over = self._splitter.take(data)
        get = self.ports.get
        decode = decode_event
        self._noises = 0
        # Small reads get less, and still enough for lines as long as messages are.
        self._unread = min(_MOST_UNREADABLE, len(data) // _LEAST_MESSAGE + 16)
        self._escapes = MOST_ESCAPES
        # Any: an OversizedLine stands in the place of a line, and decoding it raises TypeError.
        lines: list[Any] = [] if block is None else self._lines(block)
        lines += over
        # The hottest loop of the host: what is rare is in methods, what is common is not.
        for line in lines:
            if not line:
                continue
            try:
                event = decode(line)
            except UNREADABLE:
                self._unreadable(line, dirty)
                continue
            message = event.data
            if event.event == "session" and message is not None:
                port = get(event.session_id)  # type: ignore[arg-type]
                if port is None:
                    self._late(event, message)
                elif message.type == "stream" and message.data:
                    # Empty means that nobody flushes it yet; else it is in this list or the last.
                    if not port.buffer:
                        dirty.append(port)
                    port.buffer.append(message.data)
                else:
                    self._message(port, event, message, line, dirty)
            else:
                self._other(event, line)
        if self._noises > _MOST_NOISE:
            self._listener.dropped(self._noises - _MOST_NOISE)
        return dirty

    def _lines(self, block: bytes) -> list[Any]:
        many = block.count(b"\n") + 1
        self.counters.lines += many
        if many <= _FLOOD:
            return self._splitter.cut(block)
        # A million others a second would take most of a core even if they were only cut (T-P4).
        may_be = sift(block, _MAY_BE_A_MESSAGE, self._texts)
        return [self._splitter.checked(line) for line in may_be]

    def _texts(self, block: bytes) -> None:
        """Count the lines that say something, and tell the first ones."""
        while b"\n\n" in block:
            block = block.replace(b"\n\n", b"\n")
        block = block.strip(b"\n")
        if block:
            for line in block.split(b"\n", room := max(0, _MOST_NOISE - self._noises))[:room]:
                self._listener.noise(line)
            noises = block.count(b"\n") + 1
            self._noises += noises
            self.counters.noise += noises

    def _message(
        self, port: Port, event: Event, message: Message, line: bytes, dirty: list[Port]
    ) -> None:
        session_id = event.session_id or ""
        if message.type == "end":
            self._conclude(session_id, port, b"", dirty)
        elif message.type == "invoke" and message.data:
            self._listener.invoke(session_id, bytes(message.data))
        elif message.type == "error" and message.data:
            self._conclude(session_id, port, self._error_of(message.data), dirty)
        elif message.type in ("stream", "invoke", "error", ""):
            self.counters.damaged += 1
            error = ProtocolError(
                "the plugin sent a session message without type or data", line=head_of(line)[:200]
            )
            self._conclude(session_id, port, error.as_json(), dirty)
        else:
            error_text = f"unknown stream message type: {message.type[:100]}"
            self._conclude(
                session_id, port, session_error("unknown_stream_message_type", error_text), dirty
            )

    def _error_of(self, data: bytes) -> bytes:
        size = len(memoryview(data))
        if size <= _MOST_ERROR:
            return self._clean(bytes(data))
        # It is text in text on its way out: 30 MB of quotes become 120.
        return MessageTooLarge(
            f"the plugin ended the call with an error of {size} bytes, over {_MOST_ERROR}",
            limit=_MOST_ERROR,
            size=size,
        ).as_json()

    def _conclude(self, session_id: str, port: Port, error: bytes, dirty: list[Port]) -> None:
        # Out of the table first: by an empty one `on_end` knows that nothing is open any more.
        del self.ports[session_id]
        port.conclude(error)
        dirty.append(port)
        self._on_end(session_id)

    def _late(self, event: Event, message: Message) -> None:
        self.counters.late += 1
        if message.type == "invoke" and message.data:
            # Answered with an error at once, so that the plugin does not wait for minutes.
            self._listener.invoke(event.session_id or "", bytes(message.data))

    def _other(self, event: Event, line: bytes) -> None:
        if event.event == "heartbeat":
            self._listener.heartbeat()
        elif event.event in ("log", "error"):
            try:
                entry = decode_log(line).data
                self._listener.log(entry.level or event.event, entry.message or entry.error)
            except UNREADABLE:
                self._listener.log("error", head_of(line))
        elif not event.event and not line.startswith(b'{"version"'):
            # The bare manifest is the first line of every SDK; a name that we do not know may be
            # a later SDK's. Neither is noise.
            self._noise(line)

    def _unreadable(self, line: bytes | OversizedLine, dirty: list[Port]) -> None:
        if isinstance(line, OversizedLine):
            self._oversized(line, dirty)
            return
        if not self._unread:
            self._noise(line)
            return
        self._unread -= 1
        escapes = line.count(b"\\")
        if escapes <= self._escapes:
            self._escapes -= escapes
            line = with_whole_pairs(line)
        for text, message, event in glued_events(line):
            if event is None:
                self._text(text, dirty)
            else:
                if text:
                    self._noise(text)
                self._recovered(event, message, dirty)

    def _text(self, text: bytes, dirty: list[Port]) -> None:
        """What is no message, though it may have been meant as one."""
        # Only what says that it is a session's: an id in a print() must not cost anybody a call.
        if _DAMAGED.search(text):
            named = OversizedLine(text[:HEAD_KEPT], len(text)).session_id
            port = self.ports.get(named) if named else None
            if port is not None and named is not None:
                self.counters.damaged += 1
                error = ProtocolError(
                    "the plugin sent a line that is no JSON", line=head_of(text)[:200]
                )
                self._conclude(named, port, error.as_json(), dirty)
        if text:
            self._noise(text)

    def _recovered(self, event: Event, line: bytes, dirty: list[Port]) -> None:
        message = event.data
        port = self.ports.get(event.session_id or "")
        if event.event != "session" or message is None:
            self._other(event, line)
        elif port is None:
            self._late(event, message)
        elif message.type == "stream" and message.data:
            port.buffer.append(message.data)
            dirty.append(port)
        else:
            self._message(port, event, message, line, dirty)

    def _noise(self, text: bytes) -> None:
        self.counters.noise += 1
        self._noises += 1
        if self._noises <= _MOST_NOISE:
            self._listener.noise(text)

    def _oversized(self, line: OversizedLine, dirty: list[Port]) -> None:
        session_id = line.session_id
        port = self.ports.get(session_id) if session_id else None
        if port is None or session_id is None:
            self._noise(line.head)
            return
        limit = self._splitter.limit
        error = MessageTooLarge(
            f"the plugin sent a line of {line.size} bytes, over the limit of {limit} "
            f"({self.limit_setting})",
            limit=limit,
            size=line.size,
            setting=self.limit_setting,
        )
        self._conclude(session_id, port, error.as_json(), dirty)
