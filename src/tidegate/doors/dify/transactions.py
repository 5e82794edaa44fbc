"""Back-calls of serverless functions: ``POST /backwards-invocation/transaction``.

Answers are lines with a blank one between. The route is open to everybody who can reach the port,
so it looks at the signature before it reads or asks anything, and refuses at once what is no
back-call (D-23, D-31). Its answers are compressed where the function's client takes that, as the
SDK's does.
"""

from __future__ import annotations

from typing import Any, Final, final

from tidegate.deadline import Deadline
from tidegate.doors.compressed import accepts_gzip, compressed
from tidegate.doors.routes import (
    Answer,
    Auth,
    BodyLimit,
    BodyRule,
    Kind,
    Request,
    Response,
    Route,
    StreamResponse,
)
from tidegate.doors.services import Services
from tidegate.errors import BadRequest, CallFailed, TidegateError
from tidegate.runtime import home
from tidegate.telemetry.logs import get_log
from tidegate.wire.serverless import (
    KEEP_ALIVE,
    MOST_TRANSACTION,
    SESSION_HEADER,
    Transaction,
    answer_event,
    is_signed,
    read_transaction,
)

log = get_log("doors")

_TEXT: Final = "text/plain; charset=utf-8"
_UNKNOWN: Final = "failed to get session info from cache"


def transaction_routes(services: Services) -> list[Route]:
    """The row of back-calls; none where plugins are no functions. Called once per process."""
    if services.settings.platform != "serverless":
        return []
    return [
        Route(
            "POST",
            "/backwards-invocation/transaction",
            _Transactions(services).answer,
            "A function's back-call; its signed session is its key.",
            Auth.NONE,
            BodyRule.JSON,
            Kind.RAW,  # lines as the plugin protocol has them, no events
            limit=BodyLimit(MOST_TRANSACTION, "the most of a back-call"),
        )
    ]


@final
class _Transactions:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._key = home.session_key(services.settings)
        self._seconds = float(services.settings.max_serverless_transaction_timeout)

    def answer(self, request: Request) -> Answer:
        named = request.header(SESSION_HEADER)
        # The header before the body: what a stranger sends is not even read.
        if named and not is_signed(self._key, named):
            log.warning("back-call with a session that was not made here")
            return _unknown_session(Transaction(named[:128], b""))
        try:
            asked = read_transaction(request.body.read())
        except BadRequest as error:
            text = error.message.encode("utf-8", "replace")
            # Plain text and closed: whoever sends this speaks something else, and its next bytes
            # have no meaning.
            return Response(error.status, text, _TEXT, close=True)
        # Again: the header may be missing, and the body's session is the one that is used.
        if not is_signed(self._key, asked.session):
            log.warning("back-call with a session that was not made here")
            return _unknown_session(asked)
        answer = self._open(asked)
        if isinstance(answer, StreamResponse) and accepts_gzip(request.header("accept-encoding")):
            return compressed(answer)
        return answer

    def _open(self, asked: Transaction) -> Answer:
        deadline = Deadline.after(self._seconds, "MAX_SERVERLESS_TRANSACTION_TIMEOUT")
        params = {"session": asked.session, "invoke": asked.invoke.decode("utf-8", "replace")}
        try:
            stream = self._services.calls.control("transaction", params, deadline)
        except CallFailed as error:
            return _refused(asked, error)
        return StreamResponse(
            source=stream,
            events=_events,
            error_event=lambda error: asked.refusal(error.message, _typed(error)),
            before_head=lambda error: _refused(asked, error),
            finished=_nothing,
            seconds=self._seconds,
        )


def _events(bodies: list[bytes]) -> list[bytes]:
    """Lines of answers; a ``null`` among them is a sign of life."""
    return [
        KEEP_ALIVE if line == b"null" else answer_event(line)
        for body in bodies
        for line in body.split(b"\n")
    ]


def _unknown_session(asked: Transaction) -> Response:
    data = {"error_type": "SessionNotFound", "detail": _UNKNOWN, "session_id": asked.session}
    return Response(400, asked.refusal(_UNKNOWN, data), close=True)


def _refused(asked: Transaction, error: CallFailed) -> Response:
    if error.error_type == "SessionOver":
        return _unknown_session(asked)
    # 503 is what its client may try again after a while; a request that cannot be read stays
    # unreadable.
    status = 500 if error.error_type == "BackCallInvalid" else 503
    return Response(status, asked.refusal(error.message, _typed(error)))


def _typed(error: TidegateError) -> dict[str, Any]:
    return {"error_type": error.error_type, "args": error.details or None}


def _nothing(outcome: Any) -> None:
    """Back-calls have their own figures."""
