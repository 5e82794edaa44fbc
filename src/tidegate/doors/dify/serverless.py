"""Routes of PLATFORM=serverless: back-calls of functions, and what an administrator may do.

| route | who | answer |
|-------|-----|--------|
| ``/backwards-invocation/transaction`` | a function, by its signed session | lines, blank between |
| ``/admin/plugin/serverless/reinstall`` | administrator | events info, then done or error |
| ``/admin/plugin/serverless/switch-endpoint`` | administrator | ``true`` |

The first is open to everybody who can reach the port, so it looks at the signature before it reads
or asks anything, and refuses at once what is no back-call (D-23, D-31). Its answers are compressed
where the function's client takes that, which the SDK's does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import msgspec

from tidegate.calls import Stream
from tidegate.deadline import Deadline
from tidegate.doors.binding import IDENTIFIER, REQUIRED, Form, bind
from tidegate.doors.compressed import accepts_gzip, compressed
from tidegate.doors.dify.opening import error_event
from tidegate.doors.envelope import failure, success
from tidegate.doors.routes import (
    Answer,
    Auth,
    BodyLimit,
    BodyRule,
    Kind,
    Request,
    Response,
    Route,
    Source,
    StreamResponse,
)
from tidegate.doors.services import Services
from tidegate.errors import (
    BadRequest,
    CallFailed,
    InternalFailure,
    TidegateError,
)
from tidegate.runtime import home
from tidegate.storage import serverless_runtimes
from tidegate.telemetry.logs import get_log
from tidegate.wire import sse
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

_REINSTALL_SECONDS: Final = 1800.0
_TEXT: Final = "text/plain; charset=utf-8"
_UNKNOWN: Final = "failed to get session info from cache"
_LOCAL: Final = "on local platform"


class ReinstallForm(Form):
    """Which version is to be launched again."""

    plugin_unique_identifier: str = ""
    rules = {"plugin_unique_identifier": (REQUIRED, IDENTIFIER)}


class SwitchForm(Form):
    """Where a version is called from now on."""

    plugin_unique_identifier: str = ""
    function_name: str = ""
    function_url: str = ""
    rules = {
        "plugin_unique_identifier": (REQUIRED, IDENTIFIER),
        "function_name": (REQUIRED,),
        "function_url": (REQUIRED,),
    }


def serverless_routes(services: Services) -> list[Route]:
    """The rows that the settings ask for. Called once per process."""
    settings = services.settings
    routes = []
    if settings.platform == "serverless":
        routes.append(
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
        )
    if settings.admin_api_enabled:
        routes += _admin_routes(_Administration(services))
    return routes


def _admin_routes(door: _Administration) -> list[Route]:
    path = "/admin/plugin/serverless"
    return [
        Route(
            "POST",
            f"{path}/reinstall",
            door.reinstall,
            "Launch a version's function again.",
            Auth.ADMIN,
            BodyRule.JSON,
            Kind.STREAM,
        ),
        Route(
            "POST",
            f"{path}/switch-endpoint",
            door.switch,
            "Call a version at another address.",
            Auth.ADMIN,
            BodyRule.JSON,
        ),
    ]


# --------------------------------------------------------------------------- back-calls


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


# --------------------------------------------------------------------------- administration


@final
class _Administration:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._serverless = services.settings.platform == "serverless"

    def reinstall(self, request: Request) -> Answer:
        """Events as they come; what the connector says is in them."""
        form = bind(request, ReinstallForm)
        if not self._serverless:
            # As an event: the route answers in no other form.
            told = f"reinstall is not supported {_LOCAL}"
            return _stream(_Told([_event("error", told)]))
        deadline = Deadline.after(_REINSTALL_SECONDS, "reinstallation")
        params = {"identifier": form.plugin_unique_identifier}
        return _stream(_Reinstallation(self._services.calls.control("reinstall", params, deadline)))

    def switch(self, request: Request) -> Response:
        """True when the version has a function, which is then another one."""
        form = bind(request, SwitchForm)
        identifier = form.plugin_unique_identifier
        if not self._serverless:
            text = f"switch serverless runtime is not supported {_LOCAL}"
            return failure(InternalFailure(text), status=200)
        with self._services.database.write() as conn:
            known = serverless_runtimes.switch(
                conn, identifier, form.function_url, form.function_name
            )
        if not known:
            text = f"plugin serverless runtime not found: {identifier}"
            return failure(InternalFailure(text), status=200)
        self._tell_host(identifier)
        return success(True)

    def _tell_host(self, identifier: str) -> None:
        """It looks by itself within a second when it does not hear this."""
        try:
            for _ in self._services.calls.host(
                "forget", {"identifier": identifier}, Deadline.after(2.0, "api")
            ):
                pass
        except CallFailed as error:
            log.info("host not told of a switched function", error=error.message)


def _stream(source: Source) -> StreamResponse:
    return StreamResponse(
        source=source,
        events=sse.events,
        error_event=error_event,
        before_head=lambda error: None,
        finished=_nothing,
        seconds=_REINSTALL_SECONDS,
    )


def _event(event: str, text: str) -> bytes:
    return msgspec.json.encode({"event": event, "data": text})


@final
class _Told:
    """A stream whose events are known already. A ``doors.routes.Source``."""

    def __init__(self, bodies: list[bytes]) -> None:
        self._bodies = bodies

    @property
    def ready(self) -> bool:
        """Always."""
        return True

    def take(self) -> list[bytes]:
        """Everything, then the end."""
        bodies, self._bodies = self._bodies, []
        return bodies

    def abort(self, error: CallFailed) -> None:
        """It ends by itself."""

    def close(self) -> None:
        """It holds nothing."""


@final
class _Reinstallation:
    """The host's progress as Dify's events: info, then done or error. A ``Source``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._ended = False
        self.close: Callable[[], None] = stream.close
        self.abort: Callable[[CallFailed], None] = stream.abort

    @property
    def ready(self) -> bool:
        """Whether ``take`` would not wait."""
        return self._ended or self._stream.ready

    def take(self) -> list[bytes]:
        """One event for each step, one for the end."""
        if self._ended:
            return []
        try:
            bodies = self._stream.take()
        except CallFailed as error:
            self._ended = True
            return [_event("error", error.message)]
        if bodies:
            return [_event("info", "reinstalling...") for body in bodies for _ in body.split(b"\n")]
        self._ended = True
        return [_event("done", "successfully reinstalled")]
