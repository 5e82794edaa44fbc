"""The door of webhooks: ``/e/<hook>/<path>``, answered by a plugin byte for byte (spec/http/05).

Anybody may knock; the hook is the secret. The plugin gets the request as bytes and answers in
chunks ``{"status", "headers", "result": hex}``: the first one with a result ends the head, each
result goes out as it comes, and all of them do (D-26).
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any, Final, final

import msgspec
from msgspec import Meta

from tidegate.calls import PluginCall
from tidegate.deadline import Deadline
from tidegate.doors.dify import opening
from tidegate.doors.dify.reshapers import Reshaped
from tidegate.doors.envelope import failure
from tidegate.doors.routes import Answer, AnswerHead, BodyLimit, Request, Response, StreamResponse
from tidegate.doors.services import Services
from tidegate.errors import (
    CallFailed,
    HookUnknown,
    InternalFailure,
    NotFound,
    PluginAnswerInvalid,
    PluginNotFound,
    ProtocolError,
)
from tidegate.ids import plugin_id_of, session_id
from tidegate.installs import Known
from tidegate.storage import endpoints
from tidegate.storage.endpoints import Endpoint
from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log
from tidegate.wire.raw_http import (
    Hook,
    answer_headers,
    content_type_of,
    escaped_path,
    raw_request,
)
from tidegate.wire.session import UNREADABLE, head_of, request_line

log = get_log("doors")

METHODS: Final = ("HEAD", "GET", "POST", "PUT", "DELETE", "OPTIONS")
_TYPE: Final = "endpoint"
_ACTION: Final = "invoke_endpoint"
_DEADLINE_OWNER: Final = "PLUGIN_MAX_EXECUTION_TIMEOUT"
_BODILESS: Final = (204, 304)
#: Bytes and number of the headers of an answer: chunks without a result could add to them for ever.
_MOST_HEADER_BYTES: Final = 256 << 10
_MOST_HEADERS: Final = 1000
#: A longer length is none: int() refuses very long ones.
_LONGEST_LENGTH: Final = 18


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
        body = (
            request.body.read()
        )  # all of it, or none: a webhook that is cut is a wrong one (D-25)
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

        # The row itself, not "none": a million guesses must not push out what is known (`remember`
        # keeps no None).
        found = catalogue.remember(("hook", hook_id), load)
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
    if isinstance(error, _Unsendable):
        return failure(PluginAnswerInvalid(error.message))
    busy = opening.before_head(error)
    return busy or failure(InternalFailure(error.as_json().decode("utf-8", "replace")))


# --------------------------------------------------------------------------- the answer


class _Chunk(msgspec.Struct):
    status: Annotated[int, Meta(ge=0, le=65535)] | None = None
    headers: dict[str, str] | None = None
    result: str | None = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class _Unsendable(ProtocolError):
    """The plugin answered with a status that no final answer can have."""

    error_type = "ProtocolError"


@final
class HookAnswer:
    """A plugin's chunks as the body of one answer; a ``Reshaper``.

    :meth:`head` is known as soon as the first chunk was taken, or the end.
    """

    def __init__(self, method: str, plugin_id: str) -> None:
        self._method = method
        self._plugin_id = plugin_id
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._header_bytes = 0
        self._guess = ""
        self._headed = False
        self._left: int | None = None

    def chunk(self, chunk: bytes) -> bytes | None:
        """See ``Reshaper``: the bytes for the client; empty ones still send the head."""
        try:
            read = _decode(chunk)
            body = None if read.result is None else binascii.unhexlify(read.result)
        except (*UNREADABLE, binascii.Error, ValueError) as error:
            raise ProtocolError(
                f"unmarshal json failed: {error}", line=head_of(chunk)[:200]
            ) from None
        # Status and headers of later chunks come too late: the head may be on its way.
        if self._headed:
            return None if body is None else self._fitting(body)
        self._status = read.status if read.status is not None else self._status
        self._add_headers(read.headers or {})
        # A chunk of headers alone: the head waits for the first result, so that all of them are in
        # it.
        if body is None:
            return None
        self._begin(body)
        return self._fitting(body)

    def finish(self) -> None:
        """See ``Reshaper``. Less than the plugin promised is not a whole answer."""
        if not self._headed:
            self._begin(b"")
            # Known only now: nothing came. With a length the connection can carry another request.
            if self._left is None and not self._without_body:
                self._headers.append(("Content-Length", "0"))
        # The client would wait for the rest of it on a connection that is kept.
        if self._left:
            raise ProtocolError(f"the answer lacks {self._left} bytes of its Content-Length")

    def head(self) -> AnswerHead:
        """Status and headers. Called once, when the first byte is to be sent."""
        named = dict(self._headers)
        length = named.get("Content-Length")
        bodiless = self._without_body
        if self._status == 204:  # RFC 9110 8.6; who believes it takes the next answer for its body
            length = None
        if "Content-Type" not in named and self._guess and not bodiless:
            self._headers.append(("Content-Type", self._guess))
        return AnswerHead(
            self._status,
            tuple(one for one in self._headers if one[0] != "Content-Length"),
            length=int(length) if length is not None else None,
            bodiless=bodiless,
        )

    @property
    def _without_body(self) -> bool:
        return self._method == "HEAD" or self._status in _BODILESS

    def _add_headers(self, given: dict[str, str]) -> None:
        self._headers += given.items()
        self._header_bytes += sum(len(name) + len(value) for name, value in given.items())
        if len(self._headers) > _MOST_HEADERS or self._header_bytes > _MOST_HEADER_BYTES:
            raise ProtocolError(
                f"the answer has more than {_MOST_HEADERS} headers or {_MOST_HEADER_BYTES} bytes "
                "of them"
            )

    def _begin(self, body: bytes) -> None:
        self._headed = True
        self._status = self._status or 200
        # An informational status is not final: the client would go on waiting for an answer.
        if not 200 <= self._status <= 999:
            raise _Unsendable(f"the plugin answered with the status {self._status}")
        self._headers = answer_headers(self._headers)
        self._guess = content_type_of(body) if body else ""
        length = dict(self._headers).get("Content-Length", "")
        readable = length.isascii() and length.isdigit() and len(length) <= _LONGEST_LENGTH
        # The length of a HEAD's answer is that of a body which is not sent: nothing to count down.
        if readable and not self._without_body:
            self._left = int(length)
        elif not readable:
            self._headers = [one for one in self._headers if one[0] != "Content-Length"]

    def _fitting(self, body: bytes) -> bytes:
        """What may be sent of it: nothing beyond the length that the plugin gave."""
        if self._without_body:
            return b""
        if self._left is None:
            return body
        # What is over it would be read as the beginning of the next answer.
        fitting = body[: self._left]
        if len(fitting) < len(body):
            log.warning(
                "answer cut at its Content-Length",
                plugin=self._plugin_id,
                bytes=len(body) - len(fitting),
            )
        self._left -= len(fitting)
        return fitting
