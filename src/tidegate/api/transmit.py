"""Writing to the client's socket: everything in as few system calls as possible."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from tidegate.doors.routes import Response
from tidegate.wire.sse import LAST_CHUNK, chunked

#: Below this, joining is cheaper than handing the kernel many pieces.
JOIN_BELOW: Final = 1 << 16
_PIECES: Final = 512
CHUNKED: Final = ("Transfer-Encoding", "chunked")
#: How long and how far a refused body is read on, so that the client sees the answer first.
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 16 << 20


def send_all(sock: Any, pieces: list[bytes]) -> None:
    """Send all the pieces, waiting as long as the socket's time-out says. OSError as the socket."""
    total = sum(map(len, pieces))
    if total < JOIN_BELOW:
        data = b"".join(pieces)
        # One system call where it takes everything, which is nearly always; gevent's sendall makes
        # a memoryview and a loop first.
        sent = sock.send(data)
        if sent < total:
            sock.sendall(memoryview(data)[sent:])
        return
    views: list[memoryview | bytes] = list(pieces)
    while total:
        # Not joined: that would copy what a slow client let pile up. The kernel takes 1024 pieces
        # at most.
        sent = sock.sendmsg(views[:_PIECES])
        total -= sent
        done = 0
        while done < len(views) and sent >= len(views[done]):
            sent -= len(views[done])
            done += 1
        del views[:done]
        if sent:
            views[0] = memoryview(views[0])[sent:]


@cache
def status_line(status: int) -> str:
    """``404 Not Found``; a status that nobody named has no words."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} "


def head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Status line, Date and headers, with the empty line that ends them."""
    # The Date costs the most of a head, and changes once a second.
    second = int(time.time())
    if second != _heads_of[0]:
        _heads_of[0] = second
        _heads.clear()
    made = _heads.get((status, headers))
    if made is None:
        lines = [f"HTTP/1.1 {status_line(status)}", f"Date: {formatdate(second, usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        made = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if len(_heads) < _HEADS:
            _heads[status, headers] = made
    return made


#: Heads made in the second ``_heads_of``: streams begin with a handful of different ones.
_HEADS: Final = 64
_heads: dict[tuple[int, tuple[tuple[str, str], ...]], bytes] = {}
_heads_of = [0]


def answer_on(sock: Any, answer: Response, *, chunks: bool = True, bodiless: bool = False) -> None:
    """Send a whole answer on the socket itself, and end the connection where it says so.

    That is where nothing more can be read from it: the body was refused, or the process stops.
    Closing with unread bytes would reset the connection and destroy the answer, so a little of
    what still comes is read away. ``chunks``: whether the client understands them; ``bodiless``:
    the request was a HEAD, whose answer is a head alone.
    """
    framing, pieces = ("Content-Length", str(len(answer.body))), [answer.body]
    if answer.chunked and chunks:
        framing, pieces = CHUNKED, [*chunked(pieces), LAST_CHUNK]
    if bodiless:
        pieces = []
    headers = (
        ("Content-Type", answer.content_type),
        framing,
        *((("Connection", "close"),) if answer.close else ()),
        *answer.headers,
    )
    try:
        # Where this is used the client has often not finished sending: it must not hold the
        # greenlet for longer.
        sock.settimeout(_LINGER_SECONDS)
        send_all(sock, [head(answer.status, headers), *pieces])
        if answer.close:
            _read_away(sock)
    except OSError:
        hang_up(sock)  # the client left: there is nobody to tell
    if answer.close:
        hang_up(sock)


def _read_away(sock: Any) -> None:
    # Our end first, so that a client which waits for the end of the answer hears it while it still
    # sends.
    sock.shutdown(1)
    ends_at = time.monotonic() + _LINGER_SECONDS
    seen = 0
    while seen < _LINGER_BYTES and (left := ends_at - time.monotonic()) > 0:
        sock.settimeout(left)
        data = sock.recv(65536)
        if not data:
            return
        seen += len(data)


def hang_up(sock: Any) -> None:
    """End the connection both ways; whoever reads or writes it wakes. The owner closes it."""
    try:
        sock.settimeout(None)
        sock.shutdown(2)
    except OSError:
        pass  # it is gone already
