"""Messages between a host and a plugin: what is in a line (spec/plugin/01 sections 2-4).

Plugin to host, ``{"event", "session_id", "data"}``:

| event     | data |
|-----------|------|
| heartbeat | ``{}``: alive; the first one means ready |
| log       | ``{level, message, timestamp}`` |
| session   | ``{"type": stream / invoke / error / end, "data"}`` |
| error     | ``{error}``: the plugin could not read a line of ours |
| *(none)*  | the first line is the bare manifest; anything else is ignored |

The payload of a message stays bytes (:class:`msgspec.Raw`): nothing on its way decodes it.

Host to plugin: one ``request`` line opens a session; ``backwards_response`` lines answer its
back-calls.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tidegate.wire.lines import HEAD_KEPT
from tidegate.wire.pieces import LONG, Pieces

STREAM: Final = "stream"
INVOKE: Final = "invoke"
ERROR: Final = "error"
END: Final = "end"


# gc=False: thousands live at a time in a flood, and none of them can be part of a circle.
class Message(msgspec.Struct, gc=False):
    """``data`` of an event. Only session events have a type; ``data`` is untouched bytes."""

    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


class Event(msgspec.Struct, gc=False):
    """One line of a plugin."""

    event: str = ""
    session_id: str | None = None
    data: Message | None = None


class LogMessage(msgspec.Struct):
    """``data`` of a log event, or of an error event (which has ``error`` alone)."""

    level: str = ""
    message: str = ""
    error: str = ""
    timestamp: float = 0.0


class LogEvent(msgspec.Struct):
    """A line decoded for its text. Only for lines whose event is ``log`` or ``error``."""

    data: LogMessage


class Invoke(msgspec.Struct):
    """``data`` of an invoke message: a back-call (spec/plugin/05 section 1)."""

    type: str = ""
    backwards_request_id: str = ""
    request: msgspec.Raw = msgspec.Raw(b"")


class InvokeUnreadable(ValueError):
    """An invoke message lacks what it must have. ``request_id`` is empty when that is missing."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class _RequestId(msgspec.Struct):
    backwards_request_id: str = ""


#: A back-call's id stands in every line of its answer: a long one would be sent a thousand times.
_MOST_REQUEST_ID: Final = 1024
#: Decodes one line; one of UNREADABLE when it is no event.
decode_event = msgspec.json.Decoder(Event).decode
decode_log = msgspec.json.Decoder(LogEvent).decode
_decode_invoke = msgspec.json.Decoder(Invoke).decode
_decode_request_id = msgspec.json.Decoder(_RequestId).decode
_encode = msgspec.json.encode
#: What decoding a line may raise: it is no JSON, no event, no text, or nested too deeply. TypeError
#: too, for what stands in a line's place and is no bytes (``lines.OversizedLine``).
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError)


def decode_backcall(data: bytes) -> Invoke:
    """``data`` of an invoke message; InvokeUnreadable says what it lacks."""
    try:
        invoke = _decode_invoke(data)
    except UNREADABLE as error:
        message = f"unmarshal invoke request failed: {error}"
        raise InvokeUnreadable(message, _request_id_of(data)) from None
    if not invoke.type:
        raise InvokeUnreadable("invoke request missing type", invoke.backwards_request_id)
    if not invoke.backwards_request_id:
        raise InvokeUnreadable("invoke request missing request_id")
    if len(invoke.backwards_request_id) > _MOST_REQUEST_ID:
        raise InvokeUnreadable(f"the request id is longer than {_MOST_REQUEST_ID} characters")
    # Of a view: a request may have thirty MB, and a copy of it is paid by all who wait.
    if bytes(memoryview(invoke.request)[:1]) != b"{":
        raise InvokeUnreadable("invoke request missing request", invoke.backwards_request_id)
    return invoke


def _request_id_of(data: bytes) -> str:
    """The id of a back-call of which something else cannot be read."""
    try:
        found = _decode_request_id(data).backwards_request_id
    except UNREADABLE:
        return ""
    return found if len(found) <= _MOST_REQUEST_ID else ""


def request_line(
    session_id: str,
    *,
    user_id: str,
    type: str,
    action: str,
    data: bytes | Pieces,
    conversation_id: str | None = None,
    message_id: str | None = None,
    app_id: str | None = None,
    endpoint_id: str | None = None,
    context: bytes | None = None,
) -> bytes | Pieces:
    """The line that opens a session, without its newline. In pieces when ``data`` is.

    ``data`` is the JSON object of the action's fields, passed through as bytes behind the three
    routing keys: a field of the same name comes later and so wins, as in the reference.
    ``context`` is a JSON object in bytes, or None.
    """
    # Braces off: the routing keys and the action's fields are one object.
    fields = _inside(data)
    head = b"".join(
        (
            b'{"session_id":', _encode(session_id),
            b',"conversation_id":', _encode(conversation_id),
            b',"message_id":', _encode(message_id),
            b',"app_id":', _encode(app_id),
            b',"endpoint_id":', _encode(endpoint_id),
            b',"context":', context or b"null",
            b',"event":"request","data":{"user_id":', _encode(user_id),
            b',"type":', _encode(type),
            b',"action":', _encode(action),
            b"," if fields else b"",
        )
    )  # fmt: skip
    if isinstance(fields, bytes):
        return b"".join((head, fields, b"}}"))
    return (head, *fields, b"}}")


def _inside(data: bytes | Pieces) -> bytes | Pieces:
    """What stands between the braces of a JSON object."""
    if isinstance(data, bytes):
        return data.strip()[1:-1].strip()
    first, *middle, last = (memoryview(data[0])[1:], *data[1:-1], memoryview(data[-1]))
    if len(data) == 1:
        return (first[:-1],)
    return (first, *middle, last[:-1])


def backwards_line(
    session_id: str,
    request_id: str,
    event: str,
    *,
    message: str = "",
    data: bytes = b"null",
) -> bytes:
    """A line that answers a back-call. ``event`` is response, error or end; the last is ``end``.

    ``data`` must be a JSON object for a response, else null (spec/plugin/01 section 4.2). With an
    error an object is put beside a null: it tells the error's type to who looks for it; the SDK
    looks at the message only.
    """
    if event == "error" and data != b"null":
        # "data":null,"error_type":… - the braces of the object become those of the envelope.
        data = b"null," + data[1:-1]
    return b"".join(
        (
            b'{"session_id":', _encode(session_id),
            b',"event":"backwards_response","data":{"backwards_request_id":', _encode(request_id),
            b',"event":', _encode(event),
            b',"message":', _encode(message),
            b',"data":', data,
            b"}}",
        )
    )  # fmt: skip


def one_line(data: bytes) -> bytes:
    """JSON text with the newlines between its tokens gone, so that it fits on a line.

    Inside strings a raw newline is not valid JSON, so replacing them all is safe.
    """
    if b"\n" in data or b"\r" in data:
        return data.replace(b"\r", b" ").replace(b"\n", b" ")
    return data


def long_line(data: memoryview) -> bytes | Pieces:
    """:func:`one_line` of a text that may be long: then in pieces, views where it has no newline.

    Looked at piece by piece, since a copy of the whole would cost as much as its memory.
    """
    if len(data) < LONG:
        return one_line(bytes(data))
    pieces: list[bytes | memoryview] = []
    for start in range(0, len(data), LONG):
        view = data[start : start + LONG]
        piece = bytes(view)
        line = one_line(piece)
        pieces.append(view if line is piece else line)
    if all(isinstance(piece, memoryview) for piece in pieces):
        return (data,)
    return tuple(pieces)


def session_error(error_type: str, message: str) -> bytes:
    """The host's own error about a message of a session, in the reference's inner form."""
    # By hand: in the ground floor's tree these two have no class, being the reference's own.
    return _encode({"error_type": error_type, "message": message, "args": None})


def head_of(line: bytes) -> str:
    """The first bytes of a line for a log or an error, always valid text."""
    return line[:HEAD_KEPT].decode("utf-8", "replace")
