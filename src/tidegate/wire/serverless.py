"""What goes over HTTP where plugins are functions (spec/plugin/03), without any I/O.

    host --POST <function>/invoke?action=…--> function     the request line of wire/session
    host <--lines of wire/session---------- function
    function --POST /backwards-invocation/transaction--> api --link--> host

What the host says to the connector, which builds functions, is in :mod:`tidegate.wire.connector`.

The SDK proves itself on the way back with nothing but the id of the session that it answers. So
that id is signed: ``<session>.<hmac>``, made and checked with a key that only the roles have.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

from tidegate.errors import BadRequest, FunctionFailed
from tidegate.wire.session import UNREADABLE, backwards_line
from tidegate.wire.sse import escape_line_ends

SESSION_HEADER: Final = "Dify-Plugin-Session-ID"
#: Largest body of a transaction in bytes.
MOST_TRANSACTION: Final = 6 << 20
#: How much of an error's body is read for its reason.
MOST_REASON: Final = 4096
#: Actions without effects: they may be sent again when a gateway answered 502.
REPEATABLE: Final = frozenset(
    {
        "validate_tool_credentials",
        "validate_provider_credentials",
        "validate_model_credentials",
        "validate_datasource_credentials",
        "validate_trigger_credentials",
        "get_ai_model_schemas",
        "get_llm_num_tokens",
        "get_text_embedding_num_tokens",
    }
)
_encode: Final = msgspec.json.encode

# --------------------------------------------------------------------------- signed sessions


def sign_session(key: bytes, session: str) -> str:
    """The id under which a function knows ``session``."""
    return f"{session}.{_mark(key, session)}"


def is_signed(key: bytes, text: str) -> bool:
    """Whether ``text`` was made by :func:`sign_session` with this key."""
    session, dot, mark = text.rpartition(".")
    # As bytes: compare_digest refuses text that is not ASCII, and this comes from outside.
    return bool(dot) and hmac.compare_digest(mark.encode(), _mark(key, session).encode())


def _mark(key: bytes, session: str) -> str:
    return hmac.new(key, session.encode(), hashlib.sha256).hexdigest()[:32]


def with_session(line: bytes, session: str, signed: str) -> bytes:
    """A request line with its session id replaced. It begins with that id (wire/session)."""
    head = b'{"session_id":' + _encode(session)
    # By its place and not by a search: the payload may hold the same words.
    if not line.startswith(head):
        raise ValueError("a request line begins with its session id")
    return b'{"session_id":' + _encode(signed) + line[len(head) :]


# --------------------------------------------------------------------------- functions


def invoke_url(function: str, action: str) -> str:
    """Where ``action`` of a function is called. A query of the function's own URL is kept."""
    scheme, host, path, query, _ = urlsplit(function)
    asked = urlencode({"action": action}, quote_via=quote)
    query = f"{query}&{asked}" if query else asked
    return urlunsplit((scheme, host, f"{path.rstrip('/')}/invoke", query, ""))


class _Reason(msgspec.Struct):
    """Names are the platform's."""

    errorType: str = ""
    errorMessage: str = ""
    requestId: str = ""


_decode_reason: Final = msgspec.json.Decoder(_Reason).decode


def response_failure(
    status: int, reason: str, headers: Mapping[str, str], body: bytes
) -> FunctionFailed | None:
    """The error that a response is; None for an ordinary answer. Names of headers in lower case.

    ``body`` is the beginning of the body, and only looked at when the status is no 2xx.
    """
    kind = headers.get("x-amzn-errortype", "")
    ok = 200 <= status < 300
    if ok and not kind:
        return None
    # A 2xx body is the session's answer and must not be eaten for a reason.
    found = _Reason() if ok else _reason_in(body)
    kind = kind or found.errorType or ("Lambda runtime error" if ok else f"{status} {reason}")
    request = headers.get("x-amzn-requestid") or found.requestId
    return _failed(kind, found.errorMessage, status, request)


def line_failure(line: bytes, status: int) -> FunctionFailed | None:
    """The error that a line of a response is, when it is the platform's and no event."""
    found = _reason_in(line)
    if not found.errorType:
        return None
    return _failed(found.errorType, found.errorMessage, status, found.requestId)


def _reason_in(body: bytes) -> _Reason:
    try:
        return _decode_reason(body)
    except UNREADABLE:
        return _Reason()


def _failed(kind: str, message: str, status: int, request: str) -> FunctionFailed:
    details: dict[str, Any] = {"status_code": status}
    if request:
        details["request_id"] = request
    text = f"Plugin runtime request failed: {kind}"
    return FunctionFailed(f"{text}: {message}" if message else text, **details)


# --------------------------------------------------------------------------- transactions


class _Invoke(msgspec.Struct):
    type: str
    data: msgspec.Raw


class _Transaction(msgspec.Struct):
    event: str
    session_id: str
    data: _Invoke


class _RequestId(msgspec.Struct):
    backwards_request_id: str = ""


_decode_transaction: Final = msgspec.json.Decoder(_Transaction).decode
_decode_request_id: Final = msgspec.json.Decoder(_RequestId).decode


@final
@dataclass(frozen=True, slots=True)
class Transaction:
    """One back-call of a function. ``invoke`` is its JSON (wire/session.decode_backcall)."""

    session: str
    invoke: bytes

    @property
    def request_id(self) -> str:
        """What its answers refer to; empty when it cannot be read."""
        try:
            return _decode_request_id(self.invoke).backwards_request_id
        except UNREADABLE:
            return ""

    def refusal(self, message: str, data: Mapping[str, Any]) -> bytes:
        """Error and end as the SDK reads them: without the envelope it would die of a KeyError."""
        told = _encode(data)
        error = backwards_line(self.session, self.request_id, "error", message=message, data=told)
        return answer_event(error) + answer_event(
            backwards_line(self.session, self.request_id, "end")
        )


def read_transaction(body: bytes) -> Transaction:
    """The back-call in a request's body; BadRequest for anything else (D-23)."""
    try:
        read = _decode_transaction(body)
    except UNREADABLE as error:
        raise BadRequest(f"the body is no session event: {error}") from None
    if read.event != "session" or read.data.type != "invoke" or not read.session_id:
        raise BadRequest(
            f"only session events of type invoke are taken here, not {read.event[:32]}/"
            f"{read.data.type[:32]}"
        )
    return Transaction(read.session_id, bytes(read.data.data))


#: What keeps the connection of a transaction alive: a blank line, which the SDK skips.
KEEP_ALIVE: Final = b"\n\n"


def answer_event(line: bytes) -> bytes:
    """One line of an answer as it goes to the function: bare JSON and a blank line.

    The SDK reads it with httpx, which splits lines at U+0085, U+2028 and U+2029, too.
    """
    return escape_line_ends(line) + b"\n\n"
