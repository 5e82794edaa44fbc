"""The envelope of every JSON answer (spec/http/01 section 1.1).

    {"code":0,"message":"success","data":…}
    {"code":-400,"message":"{\\"message\\":…,\\"error_type\\":…,\\"args\\":null}","data":null}

The error is JSON *text* inside ``message``: Dify's client parses it a second time.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tidegate.doors.routes import Response
from tidegate.errors import (
    BadRequest,
    InternalFailure,
    PackageRejected,
    RequestRefused,
    TidegateError,
)
from tidegate.wire.sse import error_envelope

_HEAD: Final = b'{"code":0,"message":"success","data":'
_encoder: Final = msgspec.json.Encoder(decimal_format="string")

#: Body of a path that no route serves; ``code`` is a text here, and there is no ``data``.
NOT_FOUND: Final = Response(404, b'{"code":"not_found","message":"route not found"}')
_LONGEST_RETRY: Final = 86_400


def success(data: Any) -> Response:
    """200 with ``data`` in the envelope."""
    return success_bytes(encode(data))


def encode(data: Any) -> bytes:
    """``data`` of an answer as JSON. Bytes are base64, times RFC 3339."""
    return _encoder.encode(data)


def success_bytes(data: bytes) -> Response:
    """:func:`success` for data that is JSON already."""
    return Response(200, _HEAD + data + b"}")


def failure(error: TidegateError, status: int | None = None) -> Response:
    """The envelope of an error. ``status`` overrides the one that the error has by itself."""
    refused = as_refused(error)
    body = error_envelope(refused.message, refused.error_type, refused.code)
    headers: tuple[tuple[str, str], ...] = ()
    retry = refused.details.get("retry_after")
    # A plugin may have given itself this error, with anything in it.
    if isinstance(retry, int | float) and retry <= _LONGEST_RETRY:
        headers = (("Retry-After", str(max(1, round(retry)))),)
    return Response(refused.status if status is None else status, body, headers=headers)


def as_refused(error: TidegateError) -> RequestRefused:
    """The error as one that a request is answered with; our own kinds become -400 or -500."""
    if isinstance(error, RequestRefused):
        return error
    # Whoever sent the package can mend it. The reference answers -400 as well.
    if isinstance(error, PackageRejected):
        return BadRequest(error.message)
    return InternalFailure(error.message)
