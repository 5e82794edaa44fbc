"""The next requests of a connection whose stream is over, without a turn through gunicorn.

Callers of dispatch routes keep their connections and send one request after the other. Parsing
one costs gunicorn more than answering it costs us (about 100 of 200 us), because it prepares for
everything that HTTP allows. So when a stream has ended, the request's own greenlet waits for what
comes next and looks at it without taking it (MSG_PEEK). A plain dispatch request - POST, HTTP/1.1,
whole, nothing that changes framing or the connection - is taken and served right here. Anything
else stays in the socket, and gunicorn reads it as if nobody had looked.

The head is parsed by gunicorn's own parser in C, so that both read the same; without it there are
no following requests.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Final, final

from tidegate.api.transmit import hang_up
from tidegate.doors.route_table import RouteTable
from tidegate.doors.routes import Kind

try:
    import gunicorn_h1c as parser
except ImportError:  # comes as source only: not everywhere
    parser = None

#: Requests up to this size, body included.
PEEK: Final = 1 << 16
#: Seconds that an idle connection is kept; the same as gunicorn's (``tidegate.gunicorn_conf``).
KEPT: Final = 75.0

_MSG_PEEK: Final = socket.MSG_PEEK
_PATH: Final = re.compile(rb"/[A-Za-z0-9/_.-]+")
#: Headers after which a request is gunicorn's business.
_NOT_PLAIN: Final = frozenset(
    b"CONNECTION EXPECT HTTP2-SETTINGS KEEP-ALIVE PATH_INFO PROXY-CONNECTION SCRIPT_NAME TE "
    b"TRAILER TRANSFER-ENCODING UPGRADE".split()
)
_KEYS_KEPT: Final = 512
_keys: dict[bytes, str | None] = {}


@final
class FollowingRequests:
    """What comes next on one connection. Used by the greenlet that owns it."""

    def __init__(self, environ: dict[str, Any], table: RouteTable, limit: int) -> None:
        self._sock = environ["gunicorn.socket"]
        self._client = environ.get("REMOTE_ADDR", "")
        self._table = table
        # A request that does not fit whole into one look is left to gunicorn.
        self._limit = min(limit, PEEK)

    def wait(self) -> tuple[dict[str, Any], bytes] | None:
        """(environ, body) of the next request, when it is a plain one. Waits for it.

        None when the connection is gunicorn's again, or over.
        """
        try:
            self._sock.settimeout(KEPT)
            # Looked at, not taken: whatever we do not understand is still there for gunicorn, byte
            # for byte, so there is no second reading of a request that could differ from the first
            # (T-S16).
            data = self._sock.recv(PEEK, _MSG_PEEK)
            found = self._plain(data) if data else None
            if found is not None:
                self._take(found[2])
                return found[0], found[1]
            self._sock.settimeout(None)
        except OSError:  # gone, or idle for too long
            hang_up(self._sock)
        return None

    def _plain(self, data: bytes) -> tuple[dict[str, Any], bytes, int] | None:
        try:
            head = parser.parse_request(data)
        except (parser.ParseError, parser.IncompleteError):
            return None
        path = head["path"]
        # No query and no escapes: what needs decoding is decoded in one place only, by gunicorn.
        if head["method"] != b"POST" or head["minor_version"] != 1 or not _PATH.fullmatch(path):
            return None
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path.decode(),
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self._client,
            "gunicorn.socket": self._sock,
        }
        if not _add_headers(environ, head["headers"]):
            return None
        found = self._table.find("POST", environ["PATH_INFO"])
        # The routes that Dify calls in a row. Others would gain nothing, and each one more is one
        # more way around gunicorn.
        if found is None or found[0].kind is not Kind.STREAM:
            return None
        length = environ.get("CONTENT_LENGTH", "")
        start = head["consumed"]
        # Without a length there is no body that could be delimited, and int() takes quadratic time
        # for long texts.
        end = start + int(length) if length.isdecimal() and len(length) < 10 else 0
        # Not all here yet. Waiting for the rest would need a time limit of its own; gunicorn's
        # side has one.
        if not start <= end <= len(data) or end - start > self._limit:
            return None
        return environ, data[start:end], end

    def _take(self, size: int) -> None:
        while size:
            size -= len(self._sock.recv(size))


def may_follow(environ: dict[str, Any]) -> bool:
    """Whether the next bytes of this request's connection are still in its socket.

    gunicorn may hold the beginning of the next request already, or the end of this body.
    """
    if parser is None or environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return False
    # gunicorn would end the connection after this answer, and so do we.
    if "close" in environ.get("HTTP_CONNECTION", "").lower():
        return False
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    unreader = getattr(reader, "unreader", None)
    # A body that nobody read to its end lies before the next request.
    if unreader is None or getattr(reader, "length", None) != 0:
        return False
    return not len(unreader.buf.getbuffer())


def _add_headers(environ: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> bool:
    """Headers as WSGI has them; False when one of them is not plain, or comes twice."""
    for name, value in headers:
        key = _keys.get(name, "")
        if key == "":
            key = _remember(name)
        if key is None:
            if name.lower() == b"connection" and value.lower() == b"keep-alive":
                continue
            return False
        # Twice the same header: gunicorn joins some and refuses others, and which is for it to
        # say. This also catches a header that would overwrite a variable of ours.
        if key in environ:
            return False
        environ[key] = value.decode("latin-1")
    return True


def _remember(name: bytes) -> str | None:
    upper = name.upper()
    key: str | None = None
    # `X_Api_Key` and `X-Api-Key` are one variable in WSGI. Proxies drop the first for that reason,
    # so it must not get past them here.
    if b"_" not in upper and upper not in _NOT_PLAIN:
        key = upper.decode("latin-1").replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = "HTTP_" + key
    # Names come from outside: without a bound anybody could fill the memory with them.
    if len(_keys) < _KEYS_KEPT:
        _keys[name] = key
    return key
