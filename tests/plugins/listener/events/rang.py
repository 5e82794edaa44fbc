from collections.abc import Mapping
from typing import Any

from dify_plugin.entities.trigger import Variables
from dify_plugin.errors.trigger import EventIgnoreError
from dify_plugin.interfaces.trigger import Event
from werkzeug import Request


class Rang(Event):
    """Its path and payload; a parameter ``ignore`` is what it says."""

    def _on_event(
        self, request: Request, parameters: Mapping[str, Any], payload: Mapping[str, Any]
    ) -> Variables:
        if parameters.get("ignore"):
            raise EventIgnoreError
        return Variables(variables={"path": request.path, "payload": dict(payload)})
