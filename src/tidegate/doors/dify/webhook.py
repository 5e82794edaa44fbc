"""The door of webhooks: ``/e/<hook>/<path>``, answered by a plugin byte for byte (spec/http/05).

Anybody may knock; the hook is the secret. The plugin gets the request as bytes, and what it answers
is read by ``webhook_answer``.
"""

from __future__ import annotations

from typing import Any, Final, final

import msgspec

from tidegate.calls import PluginCall
from tidegate.deadline import Deadline
from tidegate.doors.dify import opening
from tidegate.doors.dify.reshapers import Reshaped
from tidegate.doors.dify.webhook_answer import HookAnswer, Unsendable
from tidegate.doors.envelope import failure
from tidegate.doors.routes import Answer, BodyLimit, Request, Response, StreamResponse
from tidegate.doors.services import Services
from tidegate.errors import (
    CallFailed,
    HookUnknown,
    InternalFailure,
    NotFound,
    PluginAnswerInvalid,
    PluginNotFound,
)
from tidegate.ids import plugin_id_of, session_id
from tidegate.installs import Known
from tidegate.storage import endpoints
from tidegate.storage.endpoints import Endpoint
from tidegate.telemetry import metrics
from tidegate.wire.raw_http import Hook, escaped_path, raw_request
from tidegate.wire.session import request_line

METHODS: Final = ("HEAD", "GET", "POST", "PUT", "DELETE", "OPTIONS")
_TYPE: Final = "endpoint"
_ACTION: Final = "invoke_endpoint"
_DEADLINE_OWNER: Final = "PLUGIN_MAX_EXECUTION_TIMEOUT"


@final
class Webhooks:
    """The handler of all hooks. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seconds = float(services.settings.plugin_max_execution_timeout)

    @property
    def limit(self) -> BodyLimit:
        """The most that a request to a hook may carry."""
        settings = self._services.settings
        own = BodyLimit(settings.tidegate_webhook_body, "TIDEGATE_WEBHOOK_BODY")
        every = BodyLimit(settings.tidegate_max_body, "TIDEGATE_MAX_BODY")
        return min(own, every, key=lambda one: one.size)

    def knock(self, request: Request) -> Answer:
        """One request to a hook."""
        deadline = Deadline.after(self._seconds, _DEADLINE_OWNER)
        hook_id = request.params["hook_id"]
        # Before the body is read: whoever guesses hooks sends it for nothing and costs no memory.
        endpoint, known = self._find(hook_id)
        # All of it, or none: a webhook that is cut is a wrong one (D-25).
        body = request.body.read()
        raw = raw_request(_hook(request, hook_id, body))
        settings = self._settings(endpoint, known)
        data = msgspec.json.encode({"raw_http_request": raw.hex(), "settings": settings})
        return self._open(request, known, _call(request, endpoint, known, data, deadline))

    # ------------------------------------------------------------------ before the call

    def _find(self, hook_id: str) -> tuple[Endpoint, Known]:
        catalogue = self._services.catalogue

        def load() -> Endpoint | None:
            with self._services.database.read() as conn:
                return endpoints.by_hook(conn, hook_id)

        # `remember` keeps no None: a million guesses must not push out what is known. And no hook
        # has a NUL, which PostgreSQL would refuse to look for: anybody could fill the log so.
        found = None if "\0" in hook_id else catalogue.remember(("hook", hook_id), load)
        if found is None:
            raise HookUnknown("endpoint not found")
        known = catalogue.installation(found.tenant, found.plugin_id)
        if known is None:
            raise HookUnknown("plugin installation not found")
        if not found.enabled:
            raise NotFound("endpoint not found")
        if not known.declaration.get("endpoint"):
            raise PluginNotFound("the plugin declares no endpoints")
        return found, known

    def _settings(self, endpoint: Endpoint, known: Known) -> dict[str, Any]:
        config = known.declaration["endpoint"].get("settings") or ()
        return self._services.secrets.decrypt(
            endpoint.tenant, "", endpoint.id, endpoint.settings, config
        )

    # ------------------------------------------------------------------ the call

    def _open(self, request: Request, known: Known, call: PluginCall) -> StreamResponse:
        stream = opening.opened(self._services.calls, call)
        watch = metrics.Invocation(call.plugin_id, call.type, call.action, known.row.runtime_type)
        answer = HookAnswer(request.method, call.plugin_id)
        return StreamResponse(
            # No output rules and no escapes: what the client gets are the plugin's bytes out of
            # the hex, nothing else.
            source=Reshaped(stream, answer),
            events=list,
            # There is no place for an error in a body of somebody else's format: the connection is
            # cut.
            error_event=None,
            before_head=before_head,
            finished=lambda outcome: watch.finished(outcome.value),
            seconds=self._seconds,
            head=answer.head,
        )


def _call(
    request: Request, endpoint: Endpoint, known: Known, data: bytes, deadline: Deadline
) -> PluginCall:
    session = session_id()
    return PluginCall(
        identifier=known.identifier,
        plugin_id=plugin_id_of(known.identifier),
        type=_TYPE,
        action=_ACTION,
        tenant=endpoint.tenant,
        session=session,
        line=request_line(
            session, user_id="", type=_TYPE, action=_ACTION, data=data, endpoint_id=endpoint.id
        ),
        deadline=deadline,
        trace=request.header("traceparent"),
    )


def _hook(request: Request, hook_id: str, body: bytes) -> Hook:
    environ = request.environ
    schemes = (
        # Behind a proxy that ends TLS only the header knows. It can be forged, and the plugin's
        # idea of its own address is all that depends on it.
        environ.get("wsgi.url_scheme"),
        request.header("x-forwarded-proto").lower(),
    )
    decoded = request.params["path"]
    return Hook(
        method=request.method,
        hook_id=hook_id,
        path=escaped_path(environ.get("RAW_URI", ""), f"/e/{hook_id}", decoded),
        query=environ.get("QUERY_STRING", ""),
        headers=request.headers,
        body=body,
        scheme="https" if "https" in schemes else "http",
    )


def before_head(error: CallFailed) -> Response:
    """The plain answer for an error that came before the plugin's head."""
    if isinstance(error, Unsendable):
        return failure(PluginAnswerInvalid(error.message))
    busy = opening.before_head(error)
    return busy or failure(InternalFailure(error.as_json().decode("utf-8", "replace")))
