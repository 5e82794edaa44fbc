"""Polling of models: the two dispatch routes that answer with one JSON envelope.

Of several chunks the last one counts (spec/http/01 section 5.3). A failure is HTTP 500, so that
Dify's plain client sees it; the call has the time limit of all others (D-05).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, final

import msgspec
from msgspec import Raw

from tidegate.doors.dify import opening
from tidegate.doors.envelope import success_bytes
from tidegate.doors.routes import JSON_TYPE, AnswerHead, Response, Source, StreamResponse
from tidegate.errors import CallFailed, ProtocolError
from tidegate.wire import sse
from tidegate.wire.session import UNREADABLE, head_of

NO_RESULT: Final = "no polling result received from plugin"


class _Result(msgspec.Struct):
    status: Literal["running", "succeeded", "failed"]
    plugin_state: dict[str, Raw] | None = None
    result: Raw = Raw(b"null")
    error: str | None = None

    def __post_init__(self) -> None:
        # The next poll has to send it: `model/polling/check` refuses an empty one.
        if self.status == "running" and not self.plugin_state:
            raise ValueError("running needs a plugin_state that is not empty")
        if self.status == "succeeded" and self.result == Raw(b"null"):
            raise ValueError("succeeded needs a result")
        if self.status == "failed" and not (self.error or "").strip():
            raise ValueError("failed needs an error")


_decode: Final = msgspec.json.Decoder(_Result).decode


def polled(answer: StreamResponse) -> StreamResponse:
    """The call of ``answer``, answered with one envelope when it is over.

    Still a stream for whoever serves it: it ends with its client, and with the process.
    """
    source = _Polled(answer.source)
    return replace(
        answer,
        source=source,
        events=list,
        error_event=None,
        before_head=before_head,
        head=source.head,
    )


def before_head(error: CallFailed) -> Response:
    """The plain answer for a call that failed: always 500, typed inside."""
    if isinstance(error, _NoResult):
        return _failed(error.message)
    busy = opening.before_head(error)
    return busy or _failed(error.as_json().decode("utf-8", "replace"))


class _NoResult(CallFailed):
    """The plugin ended without a chunk."""


@final
class _Polled:
    """A source that gives one body, the envelope of the last chunk, at the call's end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._body = b""

    @property
    def ready(self) -> bool:
        """See ``Source``: after the body nothing is waited for."""
        return bool(self._body)

    def take(self) -> list[bytes]:
        """See ``Source``."""
        if self._body:
            return []
        chunk = _last(self._source)
        if chunk is None:
            raise _NoResult(NO_RESULT)
        self._body = success_bytes(sse.escape_line_ends(chunk)).body
        return [self._body]

    def abort(self, error: CallFailed) -> None:
        """See ``Source``."""
        self._source.abort(error)

    def close(self) -> None:
        """See ``Source``."""
        self._source.close()

    def head(self) -> AnswerHead:
        """Known when the body is."""
        return AnswerHead(200, (("Content-Type", JSON_TYPE),), length=len(self._body))


def _last(source: Source) -> bytes | None:
    last = None
    while bodies := source.take():
        for body in bodies:
            for chunk in body.split(b"\n"):
                _check(chunk)
                last = chunk
    return last


def _check(chunk: bytes) -> None:
    try:
        _decode(chunk)
    except UNREADABLE as error:
        raise ProtocolError(f"unmarshal json failed: {error}", line=head_of(chunk)[:200]) from None


def _failed(message: str) -> Response:
    return Response(500, sse.error_envelope(message, "PluginInvokeError"))
