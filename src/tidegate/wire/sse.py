"""Server-sent events of the dispatch routes, and the chunked framing around them.

One chunk of a plugin is one event: ``data: {"code":0,"message":"success","data":<chunk>}``
(spec/http/01 section 4). The chunk's bytes are not touched, but for the three characters that a
client's line splitter takes for a line end (U+0085, U+2028, U+2029), which are escaped.
"""

from __future__ import annotations

from typing import Final

import msgspec

_HEAD: Final = b'data: {"code":0,"message":"success","data":'
_TAIL: Final = b"}\n\n"
_BETWEEN: Final = _TAIL + _HEAD
#: Bodies below this are joined into one buffer; above, they are sent as pieces, not copied.
JOIN_BELOW: Final = 1 << 14


def escape_line_ends(text: bytes) -> bytes:
    """JSON text in UTF-8 whose strings hold no character that splits a line."""
    # Most are, by json.dumps: one look instead of three searches.
    if text.isascii():
        return text
    if b"\xc2\x85" in text:
        text = text.replace(b"\xc2\x85", rb"\u0085")
    if b"\xe2\x80\xa8" in text or b"\xe2\x80\xa9" in text:
        text = text.replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
    return text


def events(bodies: list[bytes]) -> list[bytes]:
    """The events for these bodies (each one or more chunks joined by a newline), in pieces."""
    if len(bodies) == 1:
        body = bodies[0]
        # One long chunk goes as it is: to join it would copy it once more.
        if len(body) > JOIN_BELOW and b"\n" not in body:
            return [_HEAD, escape_line_ends(body), _TAIL]
    else:
        body = b"\n".join(bodies)
    return [_HEAD + escape_line_ends(body).replace(b"\n", _BETWEEN) + _TAIL]


def error_event(inner: bytes, error_type: str = "PluginInvokeError") -> bytes:
    """The event that ends a stream with an error. ``inner`` is the text of its message.

    For ``PluginInvokeError`` that is the JSON of the plugin's own error, as text in text.
    """
    return b"data: " + error_envelope(inner.decode("utf-8", "replace"), error_type) + b"\n\n"


def error_envelope(message: str, error_type: str, code: int = -500) -> bytes:
    """An envelope whose message is the JSON text of the error (key order as the reference's)."""
    inner = msgspec.json.encode({"message": message, "error_type": error_type, "args": None})
    envelope = msgspec.json.encode({"code": code, "message": inner.decode(), "data": None})
    return escape_line_ends(envelope)


def chunked(pieces: list[bytes]) -> list[bytes]:
    """The pieces as one chunk of HTTP/1.1's chunked coding."""
    if len(pieces) == 1:
        piece = pieces[0]
        return [b"%x\r\n%b\r\n" % (len(piece), piece)]
    size = sum(map(len, pieces))
    return [b"%x\r\n" % size, *pieces, b"\r\n"]


LAST_CHUNK: Final = b"0\r\n\r\n"
