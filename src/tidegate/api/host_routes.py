"""Routes that ask the host about its plugins; for `tidegate plugin status` and `restart`."""

from __future__ import annotations

from typing import Any, Final, final

from tidegate.calls import Calls
from tidegate.deadline import Deadline
from tidegate.doors.binding import bind
from tidegate.doors.dify.forms import IdentifierForm
from tidegate.doors.envelope import success
from tidegate.doors.routes import BodyRule, Request, Response, Route
from tidegate.errors import InternalFailure, TidegateError

_STATUS_SECONDS: Final = 10.0
_OWNER: Final = "api"


def host_routes(calls: Calls, start_limit: float) -> list[Route]:
    """All rows of this module. Called once per process."""
    own = _HostRoutes(calls, start_limit)
    return [
        Route("GET", "/debug/plugins", own.show_plugins, "What the host knows of its plugins."),
        Route(
            "POST",
            "/debug/plugins/restart",
            own.restart_plugin,
            "Start a new process of a plugin and let the old one drain.",
            body=BodyRule.JSON,
        ),
    ]


@final
class _HostRoutes:
    def __init__(self, calls: Calls, start_limit: float) -> None:
        self._calls = calls
        # The host answers when the new process is ready, so a restart may take as long as a start
        # does.
        self._restart_seconds = start_limit + _STATUS_SECONDS

    def show_plugins(self, request: Request) -> Response:
        return success(self._ask("status", {}, _STATUS_SECONDS))

    def restart_plugin(self, request: Request) -> Response:
        identifier = bind(request, IdentifierForm).plugin_unique_identifier
        return success(self._ask("restart", {"identifier": identifier}, self._restart_seconds))

    def _ask(self, op: str, params: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
        try:
            return list(self._calls.host(op, params, Deadline.after(seconds, _OWNER)))
        except TidegateError as error:
            raise InternalFailure(f"{op}: {error.message}") from error
