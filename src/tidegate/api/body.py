"""The body of a request under the limits of this process: TIDEGATE_MAX_BODY, …_BODY_TIMEOUT.

A route may have another limit (``Route.limit``). All hold for bodies of known length and for
chunked ones. A body that breaks one leaves the connection in an unknown place:
:attr:`RequestBody.broken` tells ``application`` to close it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, final

import gevent
from gunicorn.http.errors import ParseException

from tidegate.deadline import Deadline
from tidegate.doors.routes import BodyLimit
from tidegate.errors import BadRequest, BodyTooLarge, BodyTooSlow

_PIECE: Final = 1 << 18


@final
class RequestBody:
    """Reads ``wsgi.input`` once. Made per request; nothing is read before it is asked for."""

    __slots__ = ("_environ", "_limit", "_seconds", "broken")

    def __init__(self, environ: dict[str, Any], *, limit: BodyLimit, seconds: float) -> None:
        self._environ = environ
        self._limit = limit
        self._seconds = seconds
        self.broken = False

    def check(self) -> None:
        """BodyTooLarge when one that long is announced; asked also where nobody reads it."""
        self._length()

    def read(self) -> bytes:
        """All of it; b"" when there is none. BodyTooLarge (413), BodyTooSlow (408)."""
        length = self._length()
        if length == 0:
            return b""
        if length is None:
            return b"".join(self.pieces())
        data = self._read(length, self._seconds)
        self._complete(len(data), length)
        return data

    def pieces(self) -> Iterator[bytes]:
        """The same in pieces of up to 256 KiB."""
        length = self._length()
        if length == 0:
            return
        deadline = Deadline.after(self._seconds, "TIDEGATE_BODY_TIMEOUT")
        total = 0
        while length is None or total < length:
            size = _PIECE if length is None else min(_PIECE, length - total)
            data = self._read(size, deadline.remaining())
            if not data:
                break
            total += len(data)
            # A chunked body announces nothing: it is measured as it comes, and refused one piece
            # over the limit.
            if total > self._limit.size:
                raise self._too_large()
            yield data
        if length is not None:
            self._complete(total, length)

    def _length(self) -> int | None:
        """Announced length; 0 when there is no body, None when it is chunked."""
        text = self._environ.get("CONTENT_LENGTH")
        if text:
            length = int(text)
            if length > self._limit.size:
                raise self._too_large()
            return length
        return None if "HTTP_TRANSFER_ENCODING" in self._environ else 0

    def _read(self, size: int, seconds: float) -> bytes:
        # Around each read instead of a time-out of the socket: that one would begin anew with
        # every byte of a client that sends one now and then (T-B4).
        timer = gevent.Timeout.start_new(max(0.001, seconds))
        try:
            data: bytes = self._environ["wsgi.input"].read(size)
        except gevent.Timeout as expired:
            # Somebody else's time-out, of a test or of a drain: not for us to turn into a 408.
            if expired is not timer:
                raise
            self.broken = True
            raise BodyTooSlow(
                f"the body did not arrive within {self._seconds:g} s (TIDEGATE_BODY_TIMEOUT)"
            ) from None
        except (OSError, ParseException) as error:
            self.broken = True
            raise BadRequest(f"the body could not be read: {error}") from error
        finally:
            timer.close()
        return data

    def _complete(self, got: int, length: int) -> None:
        # gunicorn gives what there is when the client closes early, without an error: half a body
        # would be half a JSON or, worse, half a package.
        if got < length:
            self.broken = True
            raise BadRequest(f"the body ended after {got} of {length} bytes")

    def _too_large(self) -> BodyTooLarge:
        self.broken = True
        size, owner = self._limit.size, self._limit.owner
        return BodyTooLarge(f"the body is larger than {size} bytes ({owner})", limit=size)


@final
class WholeBody:
    """A body that came with its head: nothing is waited for any more."""

    __slots__ = ("_data", "broken")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.broken = False

    def check(self) -> None:
        """It is here: whoever took it looked at its length."""

    def read(self) -> bytes:
        """All of it."""
        return self._data

    def pieces(self) -> Iterator[bytes]:
        """The same, in one piece."""
        yield self._data


type ServedBody = RequestBody | WholeBody
