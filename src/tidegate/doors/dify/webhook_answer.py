"""A plugin's chunks as the answer to a webhook: status, headers, body (spec/http/05).

Chunks are ``{"status", "headers", "result": hex}``. The first one with a result ends the head, each
result goes out as it comes, and all of them do (D-26).
"""

from __future__ import annotations

import binascii
from typing import Annotated, Final, final

import msgspec
from msgspec import Meta

from tidegate.doors.routes import AnswerHead
from tidegate.errors import ProtocolError
from tidegate.telemetry.logs import get_log
from tidegate.wire.raw_http import answer_headers, content_type_of
from tidegate.wire.session import UNREADABLE, head_of

log = get_log("doors")

_BODILESS: Final = (204, 304)
#: Bytes and number of the headers of an answer: chunks without a result could add to them for ever.
_MOST_HEADER_BYTES: Final = 256 << 10
_MOST_HEADERS: Final = 1000
#: A longer length is none: int() refuses very long ones.
_LONGEST_LENGTH: Final = 18


class _Chunk(msgspec.Struct):
    status: Annotated[int, Meta(ge=0, le=65535)] | None = None
    headers: dict[str, str] | None = None
    result: str | None = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class Unsendable(ProtocolError):
    """The plugin answered with a status that no final answer can have."""

    error_type = "ProtocolError"


@final
class HookAnswer:
    """A plugin's chunks as the body of one answer; a ``Reshaper``.

    :meth:`head` is known as soon as the first chunk was taken, or the end.
    """

    def __init__(self, method: str, plugin_id: str) -> None:
        self._method = method
        self._plugin_id = plugin_id
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._header_bytes = 0
        self._guess = ""
        self._headed = False
        self._left: int | None = None

    def chunk(self, chunk: bytes) -> bytes | None:
        """See ``Reshaper``: the bytes for the client; empty ones still send the head."""
        try:
            read = _decode(chunk)
            body = None if read.result is None else binascii.unhexlify(read.result)
        except (*UNREADABLE, binascii.Error, ValueError) as error:
            raise ProtocolError(
                f"unmarshal json failed: {error}", line=head_of(chunk)[:200]
            ) from None
        # Status and headers of later chunks come too late: the head may be on its way.
        if self._headed:
            return None if body is None else self._fitting(body)
        self._status = read.status if read.status is not None else self._status
        self._add_headers(read.headers or {})
        # A chunk of headers alone: the head waits for the first result, so that all of them are in
        # it.
        if body is None:
            return None
        self._begin(body)
        return self._fitting(body)

    def finish(self) -> None:
        """See ``Reshaper``. Less than the plugin promised is not a whole answer."""
        if not self._headed:
            self._begin(b"")
            # Known only now: nothing came. With a length the connection can carry another request.
            if self._left is None and not self._without_body:
                self._headers.append(("Content-Length", "0"))
        # The client would wait for the rest of it on a connection that is kept.
        if self._left:
            raise ProtocolError(f"the answer lacks {self._left} bytes of its Content-Length")

    def head(self) -> AnswerHead:
        """Status and headers. Called once, when the first byte is to be sent."""
        named = dict(self._headers)
        length = named.get("Content-Length")
        bodiless = self._without_body
        if self._status == 204:  # RFC 9110 8.6; who believes it takes the next answer for its body
            length = None
        if "Content-Type" not in named and self._guess and not bodiless:
            self._headers.append(("Content-Type", self._guess))
        return AnswerHead(
            self._status,
            tuple(one for one in self._headers if one[0] != "Content-Length"),
            length=int(length) if length is not None else None,
            bodiless=bodiless,
        )

    @property
    def _without_body(self) -> bool:
        return self._method == "HEAD" or self._status in _BODILESS

    def _add_headers(self, given: dict[str, str]) -> None:
        self._headers += given.items()
        self._header_bytes += sum(len(name) + len(value) for name, value in given.items())
        if len(self._headers) > _MOST_HEADERS or self._header_bytes > _MOST_HEADER_BYTES:
            raise ProtocolError(
                f"the answer has more than {_MOST_HEADERS} headers or {_MOST_HEADER_BYTES} bytes "
                "of them"
            )

    def _begin(self, body: bytes) -> None:
        self._headed = True
        self._status = self._status or 200
        # An informational status is not final: the client would go on waiting for an answer.
        if not 200 <= self._status <= 999:
            raise Unsendable(f"the plugin answered with the status {self._status}")
        self._headers = answer_headers(self._headers)
        self._guess = content_type_of(body) if body else ""
        length = dict(self._headers).get("Content-Length", "")
        readable = length.isascii() and length.isdigit() and len(length) <= _LONGEST_LENGTH
        # The length of a HEAD's answer is that of a body which is not sent: nothing to count down.
        if readable and not self._without_body:
            self._left = int(length)
        elif not readable:
            self._headers = [one for one in self._headers if one[0] != "Content-Length"]

    def _fitting(self, body: bytes) -> bytes:
        """What may be sent of it: nothing beyond the length that the plugin gave."""
        if self._without_body:
            return b""
        if self._left is None:
            return body
        # What is over it would be read as the beginning of the next answer.
        fitting = body[: self._left]
        if len(fitting) < len(body):
            log.warning(
                "answer cut at its Content-Length",
                plugin=self._plugin_id,
                bytes=len(body) - len(fitting),
            )
        self._left -= len(fitting)
        return fitting
