"""Dify as the one who answers: its inner API, stream or not, passed on as it comes."""

from __future__ import annotations

import re
import secrets
from typing import Final, final

from msgspec import Raw

from tidegate.backcalls.inner_client import InnerAnswer, InnerClient
from tidegate.backcalls.kinds import Kind
from tidegate.backcalls.target import Answer, BackCall, Session
from tidegate.errors import BackCallFailed, CallFailed
from tidegate.wire.inner_api import InnerApiError, reply_data, request_body


@final
class DifyResponder:
    """A :class:`tidegate.backcalls.Responder`. Holds the connections to Dify."""

    def __init__(self, client: InnerClient) -> None:
        self._client = client

    def respond(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> None:
        """See :meth:`Responder.respond`. A frame is read when the plugin has room for it."""
        fields = kind.read(call.request)
        # As from the reference, where a missing text is Go's empty one: Dify knows no null there.
        for name in kind.texts:
            if bytes(fields.get(name, _NULL)) == b"null":
                fields[name] = _NO_TEXT
        body = request_body(fields, tenant=session.tenant, user=session.user, type=kind.type)
        began = False
        try:
            with self._client.post(kind.path, body, trace=trace_of(call, session)) as reply:
                began = True
                _pass_on(kind, reply, answer)
        except InnerApiError as error:
            raise BackCallFailed(_prefix(kind, began) + str(error)) from error
        except CallFailed as error:
            text = _prefix(kind, began) + error.message
            raise type(error)(text, **error.details) from error

    def close(self) -> None:
        """See :meth:`Responder.close`."""
        self._client.close()


_NULL: Final = Raw(b"null")
_NO_TEXT: Final = Raw(b'""')


_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(call: BackCall, session: Session) -> str:
    """``traceparent`` for what is done for a back-call: the caller's trace, or the session's."""
    # Without one of the caller's the session stands in, so that all of its back-calls share one.
    # A webhook's comes from anybody, and goes on to Dify as a header: only what is one (W3C).
    given = _TRACE.fullmatch(session.trace)
    trace = given[1] if given else call.session_id.replace("-", "")
    return f"00-{trace}-{secrets.token_hex(8)}-01"


def _pass_on(kind: Kind, reply: InnerAnswer, answer: Answer) -> None:
    if not kind.stream:
        answer.respond(reply_data(reply.whole(), twice=kind.twice), stream=False)
        return
    # One at a time: `respond` waits while the plugin does not read, which holds Dify back.
    for frame in reply.frames():
        answer.respond(reply_data(frame), stream=True)


def _prefix(kind: Kind, began: bool) -> str:
    return kind.read_failed if began else kind.failed
