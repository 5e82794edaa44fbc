"""What an administrator may do with serverless functions (ADMIN_API_ENABLED).

| route | answer |
|-------|--------|
| ``/admin/plugin/serverless/reinstall`` | events info, then done or error |
| ``/admin/plugin/serverless/switch-endpoint`` | ``true`` |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import msgspec

from tidegate.calls import Stream
from tidegate.deadline import Deadline
from tidegate.doors.binding import IDENTIFIER, REQUIRED, Form, bind
from tidegate.doors.dify.opening import error_event
from tidegate.doors.envelope import failure, success
from tidegate.doors.routes import (
    Answer,
    Auth,
    BodyRule,
    Kind,
    Outcome,
    Request,
    Response,
    Route,
    Source,
    StreamResponse,
)
from tidegate.doors.services import Services
from tidegate.errors import CallFailed, InternalFailure
from tidegate.storage import serverless_runtimes
from tidegate.telemetry.logs import get_log
from tidegate.wire import sse

log = get_log("doors")

_REINSTALL_SECONDS: Final = 1800.0
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


def admin_routes(services: Services) -> list[Route]:
    """The rows of the administrator; none where that is switched off. Called once per process."""
    if not services.settings.admin_api_enabled:
        return []
    door, path = _Administration(services), "/admin/plugin/serverless"
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
        finished=_nobody_counts,
        seconds=_REINSTALL_SECONDS,
    )


def _nobody_counts(outcome: Outcome) -> None:
    """No call of a plugin, so none of their figures."""


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
