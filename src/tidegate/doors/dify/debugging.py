"""The key with which a developer's plugin connects (spec/http/01 row 8, plugin/02 section 2)."""

from __future__ import annotations

from typing import final

from tidegate.doors.dify.management import at_200
from tidegate.doors.envelope import success
from tidegate.doors.routes import BodyRule, Request, Response, Route
from tidegate.doors.services import Services
from tidegate.storage import debug_keys


def debugging_routes(services: Services) -> list[Route]:
    """The row of the debugging key; none where debugging is switched off."""
    if not services.settings.plugin_remote_installing_enabled:
        return []
    return [
        Route(
            "POST",
            "/plugin/{tenant_id}/debugging/key",
            at_200(_Keys(services).fetch),
            "The tenant's debugging key, good for two hours from now.",
            body=BodyRule.JSON,
        )
    ]


@final
class _Keys:
    def __init__(self, services: Services) -> None:
        self._services = services

    def fetch(self, request: Request) -> Response:
        with self._services.database.write() as conn:
            return success({"key": debug_keys.fetch(conn, request.params["tenant_id"])})
