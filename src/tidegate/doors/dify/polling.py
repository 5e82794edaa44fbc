"""Polling of models: the two dispatch routes that answer with one JSON envelope.

Of several chunks the last one counts (spec/http/01 section 5.3). A failure is HTTP 500, so that
Dify's plain client sees it; the call has the time limit of all others (D-05).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from tidegate.calls import PluginFailed
from tidegate.doors.envelope import success_bytes
from tidegate.doors.routes import Outcome, Response, Source
from tidegate.errors import CallFailed, DeadlineExceeded, IdleTimeout, ProtocolError
from tidegate.wire import sse
from tidegate.wire.session import UNREADABLE, head_of

NO_RESULT: Final = "no polling result received from plugin"


class _Polled(msgspec.Struct):
    status: Literal["running", "succeeded", "failed"]
    plugin_state: dict[str, Raw] | None = None
    result: Raw = Raw(b"null")
    error: str | None = None

    def __post_init__(self) -> None:
        if self.status == "running" and not self.plugin_state:
            raise ValueError("running needs a plugin_state that is not empty")
        if self.status == "succeeded" and self.result == Raw(b"null"):
            raise ValueError("succeeded needs a result")
        if self.status == "failed" and not (self.error or "").strip():
            raise ValueError("failed needs an error")


_decode: Final = msgspec.json.Decoder(_Polled).decode


def polled(source: Source, finished: Any) -> Response:
    """Read the call to its end and answer. ``finished`` is told once how it ended."""
    outcome = Outcome.ERROR
    try:
        chunk = _last(source)
        if chunk is None:
            return _failed(NO_RESULT)
        outcome = Outcome.SUCCESS
        return success_bytes(sse.escape_line_ends(chunk))
    except (DeadlineExceeded, IdleTimeout) as error:
        outcome = Outcome.TIMEOUT
        return _failed(error.as_json().decode())
    except PluginFailed as error:
        return _failed(error.raw.decode("utf-8", "replace"))
    except CallFailed as error:
        return _failed(error.as_json().decode())
    finally:
        source.close()
        finished(outcome)


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
