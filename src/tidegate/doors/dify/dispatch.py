"""Dispatch: one request, one session of a plugin, its chunks as server-sent events.

The two prefixes differ only in how the plugin is named (spec/http/01 section 5):

| prefix                           | plugin                                   | tenant |
|----------------------------------|------------------------------------------|--------|
| ``/plugin/{tenant_id}/dispatch`` | ``X-Plugin-ID``: what the tenant installed | path |
| ``/v2/invoke/dispatch``          | ``X-Plugin-Unique-Identifier``           | body   |

This is the hot path: one decode of the body, one of ``data``, dictionaries for the rest. What
the plugin gets is joined from the bytes that came.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, final, get_type_hints

import msgspec
from msgspec import Raw

from tidegate.calls import OutputRules, PluginCall
from tidegate.deadline import Deadline
from tidegate.doors.binding import BindingRefused, rule_failed
from tidegate.doors.dify.action import Action, Data
from tidegate.doors.dify.opening import NO_NODE, before_head, error_event, opened
from tidegate.doors.dify.polling import polled
from tidegate.doors.dify.reshapers import Reshaped
from tidegate.doors.routes import Request, StreamResponse
from tidegate.doors.services import Services
from tidegate.errors import BadRequest, PluginNotFound, RuntimeNotFound
from tidegate.ids import PluginIdentifier, is_uuid, plugin_id_of, session_id
from tidegate.telemetry import metrics
from tidegate.wire import sse
from tidegate.wire.pieces import LONG, Pieces
from tidegate.wire.session import one_line, request_line

_DEADLINE_OWNER: Final = "PLUGIN_MAX_EXECUTION_TIMEOUT"
#: Versions whose output schemas are kept by name; compiled ones are kept by ``calls``.
_SCHEMAS_KEPT: Final = 1024


class Body(msgspec.Struct, gc=False):
    """A dispatch request. What stands in ``data`` and ``context`` goes on as bytes."""

    data: Raw = Raw(b"")
    user_id: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    app_id: str | None = None
    endpoint_id: str | None = None
    tenant_id: str | None = None
    context: Raw = Raw(b"")


_decode: Final = msgspec.json.Decoder(Body).decode


@cache
def request_form(action: Action) -> type[msgspec.Struct]:
    """The request of one action as a type, for the OpenAPI document."""
    others = [(name, kind, None) for name, kind in get_type_hints(Body).items() if name != "data"]
    name = action.path.title().replace("/", "").replace("_", "")
    return msgspec.defstruct(name, [("data", action.shape), *others])


def read_body(request: Request) -> Body:
    """The request's JSON object. BindingRefused says what is wrong with it (D-68)."""
    kind = request.header("content-type")
    # The comparison first: nearly every caller sends exactly this, and this is the hot path.
    if kind != "application/json" and kind.partition(";")[0].strip() != "application/json":
        raise BindingRefused("dispatch takes a JSON body: send Content-Type: application/json")
    return decode_body(request.body.read())


def decode_body(text: bytes) -> Body:
    """:func:`read_body` for bytes that are there already."""
    try:
        # msgspec does not look at the encoding inside Raw values: bytes that are no UTF-8 would
        # reach the plugin.
        if not text.isascii():
            _require_utf8(text)
        body = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BindingRefused(f"the body is not a valid request: {error}") from None
    if not body.data or body.data == Raw(b"null"):
        raise BindingRefused(rule_failed("Data", "required"))
    return body


def _require_utf8(text: bytes) -> None:
    """UnicodeDecodeError when it is none. A long text is not held twice for that."""
    # One decode in C is quicker; above that, the decoded copy of an upload would double what the
    # request costs.
    if len(text) < LONG:
        text.decode()
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    for start in range(0, len(text), LONG):
        decoder.decode(view[start : start + LONG])
    decoder.decode(b"", final=True)


#: Tenants come again and again: each is looked at once.
known_tenant = lru_cache(maxsize=4096)(is_uuid)


@final
class Dispatcher:
    """Opens calls for the dispatch routes and for the live socket. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seconds = float(services.settings.plugin_max_execution_timeout)
        self._schemas: dict[tuple[str, str], dict[str, Any]] = {}

    def for_tenant(self, action: Action, request: Request) -> StreamResponse:
        """``/plugin/{tenant_id}/dispatch/…``: the version that the tenant installed."""
        plugin_id = request.header("x-plugin-id")
        if not plugin_id:
            raise BadRequest("the header X-Plugin-ID is required")
        tenant = request.params["tenant_id"]
        # Before the body is read: a plugin that is not there costs no upload of a file.
        plugin = self.installed(tenant, plugin_id)
        trace = request.header("traceparent")
        return self.open(action, tenant, plugin, read_body(request), trace)

    def for_poll(self, action: Action, request: Request) -> StreamResponse:
        """The polling routes: as :meth:`for_tenant`, answered with one envelope."""
        return polled(self.for_tenant(action, request))

    def for_identifier(self, action: Action, request: Request) -> StreamResponse:
        """``/v2/invoke/dispatch/…``: exactly this version, for the tenant in the body."""
        text = request.header("x-plugin-unique-identifier")
        if not text:
            raise BadRequest("the header X-Plugin-Unique-Identifier is required")
        identifier = str(PluginIdentifier.parse(text))
        # Uploaded is enough on this prefix: it names exact versions and asks no tenant's
        # installation.
        declaration = self._services.catalogue.declaration(identifier)
        if declaration is None:
            raise RuntimeNotFound(f"{NO_NODE}: {identifier}")
        body = read_body(request)
        if not body.tenant_id:
            raise BindingRefused(rule_failed("TenantID", "required"))
        if not known_tenant(body.tenant_id):  # it becomes part of paths (D-67)
            raise BindingRefused("tenant_id must be a UUID")
        trace = request.header("traceparent")
        return self.open(action, body.tenant_id, Plugin(identifier, declaration), body, trace)

    def installed(self, tenant: str, plugin_id: str) -> Plugin:
        """What ``tenant`` installed under ``plugin_id``; PluginNotFound when nothing."""
        found = None
        # What is no UUID cannot have installed anything, and must not become a key of the
        # catalogue.
        if known_tenant(tenant):
            found = self._services.catalogue.installation(tenant, plugin_id)
        if found is None:
            raise PluginNotFound(f"plugin not installed: {plugin_id[:300]}")
        return Plugin(found.identifier, found.declaration, found.row.runtime_type)

    def open(
        self, action: Action, tenant: str, plugin: Plugin, body: Body, trace: str = ""
    ) -> StreamResponse:
        """Open the session. Errors from here on are those before the stream (contract 3)."""
        # Before the session: a request that does not fit must cost the plugin nothing.
        data = action.read(body.data)
        call = self._call(action, tenant, plugin, body, data, trace)
        stream = opened(self._services.calls, call)
        if action.reshaper is not None:
            stream = Reshaped(stream, action.reshaper(data))
        watch = metrics.Invocation(call.plugin_id, action.type, action.action, plugin.runtime)
        return StreamResponse(
            source=stream,
            events=sse.events,
            error_event=error_event,
            before_head=before_head,
            finished=lambda outcome: watch.finished(outcome.value),
            seconds=self._seconds,
        )

    def _call(
        self, action: Action, tenant: str, plugin: Plugin, body: Body, data: Data, trace: str
    ) -> PluginCall:
        plugin_id = plugin_id_of(plugin.identifier)
        session = session_id()
        return PluginCall(
            identifier=plugin.identifier,
            plugin_id=plugin_id,
            type=action.type,
            action=action.action,
            tenant=tenant,
            session=session,
            line=_line(session, action, body, data),
            # From here on, not from the first chunk: waiting for a start is part of the call.
            deadline=Deadline.after(self._seconds, _DEADLINE_OWNER),
            rules=self._rules(action, plugin, plugin_id, data),
            user=body.user_id or "",
            trace=trace,
        )

    def _rules(
        self, action: Action, plugin: Plugin, plugin_id: str, data: Data
    ) -> OutputRules | None:
        if not action.rules:
            return None
        key = plugin.identifier, action.type
        schemas = self._schemas.get(key)
        if schemas is None:
            # All at once: what is kept is a look-up in a declaration, made again in microseconds.
            if len(self._schemas) >= _SCHEMAS_KEPT:
                self._schemas.clear()
            schemas = self._schemas[key] = _schemas(action, plugin.declaration)
        name = data.text(action.rules)
        rules = self._services.rules
        return rules.rules(plugin.identifier, plugin_id, name, schemas.get(name))


@final
@dataclass(frozen=True, slots=True)
class Plugin:
    """The version that a call goes to, and what it declares."""

    identifier: str
    declaration: Mapping[str, Any]
    runtime: str = "local"


def _schemas(action: Action, declaration: Mapping[str, Any]) -> dict[str, Any]:
    """The declared output schemas of one version, by the name of tool, strategy, datasource."""
    provider = declaration.get(action.type) or {}
    return {
        one["identity"]["name"]: one.get("output_schema")
        for one in provider.get(action.declared) or ()
    }


def _line(session: str, action: Action, body: Body, data: Data) -> bytes | Pieces:
    context = bytes(body.context)
    return request_line(
        session,
        user_id=body.user_id or "",
        type=action.type,
        action=action.action,
        data=data.line,
        conversation_id=body.conversation_id,
        message_id=body.message_id,
        app_id=body.app_id,
        endpoint_id=body.endpoint_id,
        context=one_line(context) if context else None,
    )
