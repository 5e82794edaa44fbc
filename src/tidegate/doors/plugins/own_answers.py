"""Tidegate as the one who answers: opens sessions of installed plugins for back-calls.

The session goes over the host's own link, as any caller's: it has the deadline, the trace and the
user of the session that asked, and is cancelled with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from tidegate.backcalls import Answer, BackCall, Kind, Session, needs_dify
from tidegate.backcalls.dify import trace_of
from tidegate.backcalls.vault import Vault
from tidegate.calls import Calls, PluginCall, PluginFailed
from tidegate.doors.files import TOOL_FILE_LIMIT, BlobMerger
from tidegate.doors.plugins import structured, summary
from tidegate.doors.plugins.deeds import DEEDS, Deed
from tidegate.doors.plugins.providers import Provider, Providers
from tidegate.errors import BackCallFailed, CallFailed, NeedsDify
from tidegate.ids import session_id
from tidegate.installs import Catalogue
from tidegate.settings import Settings
from tidegate.storage import Database
from tidegate.wire.inner_api import text_field
from tidegate.wire.session import one_line, request_line

#: The kind of tool that a plugin offers; workflows, OpenAPI and MCP tools are Dify's.
_PLUGIN_TOOL: Final = "builtin"


@final
class OwnAnswers:
    """A :class:`tidegate.backcalls.Responder`. Made by :func:`open_own_answers`."""

    def __init__(
        self, settings: Settings, calls: Calls, catalogue: Catalogue, providers: Providers
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._catalogue = catalogue
        self._providers = providers

    def respond(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> None:
        """See :meth:`Responder.respond`. NeedsDify for what no plugin can answer."""
        deed = DEEDS.get(kind.type)
        request = kind.read(call.request)
        if deed is None or (kind.type == "tool" and not _is_plugin_tool(request)):
            raise needs_dify(kind, self._settings.backcalls)
        _require_no_chosen_credential(kind, request)
        try:
            if kind.type == "system_summary":
                self._summarize(call, session, deed, request, answer)
            elif kind.type == "llm_structured_output":
                self._structure(call, session, deed, request, answer)
            else:
                self._pass_on(kind, call, session, deed, request, answer)
        except PluginFailed as error:
            text = f"{kind.failed}{error.message}"
            # The other plugin's class of error means nothing to this one's SDK; it is told as a
            # cause.
            raise BackCallFailed(text, cause=error.plugin_error_type) from error
        except CallFailed as error:
            # The same type, so that a deadline stays one, with the words in front that the
            # reference has.
            raise type(error)(f"{kind.failed}{error.message}", **error.details) from error

    def close(self) -> None:
        """See :meth:`Responder.close`."""
        self._calls.stop()
        self._catalogue.close()

    # ------------------------------------------------------------------ deeds

    def _pass_on(
        self, kind: Kind, call: BackCall, session: Session, deed: Deed, request: dict[str, Raw],
        answer: Answer,
    ) -> None:  # fmt: skip
        provider = self._provider(session, deed, request)
        data = self._data(session, deed, provider, request)
        answered = False
        # Dify would give a caller the whole file, too; the SDK of one has no use for parts.
        files = BlobMerger(TOOL_FILE_LIMIT)
        for chunk in self._call(call, session, deed, provider, data):
            whole = files.chunk(chunk) if kind.type == "tool" else chunk
            if whole is not None:
                answer.respond(whole, stream=kind.stream)
            answered = True
        files.finish()
        # A stream may be empty; an SDK that waits for one answer would raise "no answer" without
        # saying whose.
        if not answered and not kind.stream:
            raise BackCallFailed(f"{provider.full_name} ended without an answer")

    def _structure(
        self, call: BackCall, session: Session, deed: Deed, request: dict[str, Raw], answer: Answer
    ) -> None:
        provider = self._provider(session, deed, request)
        data = self._data(session, deed, provider, request)
        model = provider.model(text_field(request, "model"))
        data = structured.ask_for(data, request["structured_output_schema"], model)
        collected = structured.TextCollector()
        for chunk in self._call(call, session, deed, provider, data):
            collected.add(chunk)
            answer.respond(chunk, stream=True)
        answer.respond(collected.structured_chunk(), stream=True)

    def _summarize(
        self, call: BackCall, session: Session, deed: Deed, request: dict[str, Raw], answer: Answer
    ) -> None:
        named, model = summary.choose(
            self._providers, session.tenant, self._settings.tidegate_summary_model
        )
        provider = self._providers.find(session.tenant, deed.section, named)
        asked = summary.request(request, model)
        data = self._data(session, deed, provider, asked)
        collected = structured.TextCollector()
        for chunk in self._call(call, session, deed, provider, data):
            collected.add(chunk)
        answer.respond(msgspec.json.encode({"summary": collected.text}), stream=False)

    # ------------------------------------------------------------------ the plugin's session

    def _provider(self, session: Session, deed: Deed, request: dict[str, Raw]) -> Provider:
        return self._providers.find(session.tenant, deed.section, text_field(request, "provider"))

    def _data(
        self, session: Session, deed: Deed, provider: Provider, request: dict[str, Raw]
    ) -> dict[str, Raw]:
        model = text_field(request, "model")
        given = self._providers.credentials(session.tenant, provider, deed.model_type, model)
        ours: dict[str, Any] = {"provider": provider.name, "credentials": given}
        if deed.model_type:
            ours["model_type"] = deed.model_type
        else:
            # Tools ask for it; the operator's credentials are keys, and OAuth needs a person.
            ours["credential_type"] = "api-key" if given else "unauthorized"
        if deed.action == "invoke_tts":
            ours["tenant_id"] = session.tenant
        encoded = {name: Raw(msgspec.json.encode(value)) for name, value in ours.items()}
        # Ours last: a plugin must not choose the credentials or the tenant of another one's
        # session.
        return {**deed.data(request), **encoded}

    def _call(
        self, call: BackCall, session: Session, deed: Deed, provider: Provider,
        data: dict[str, Raw],
    ) -> Iterator[bytes]:  # fmt: skip
        """The chunks of one session of ``provider``'s plugin; it is closed when nobody takes."""
        identity = session_id()
        line = request_line(
            identity,
            user_id=session.user,
            type=deed.section,
            action=deed.action,
            data=one_line(msgspec.json.encode(data)),
        )
        opened = self._calls.plugin(
            PluginCall(
                identifier=provider.identifier,
                plugin_id=provider.plugin_id,
                type=deed.section,
                action=deed.action,
                tenant=session.tenant,
                session=identity,
                line=line,
                # Not a new one: a nested call must not outlive the one that waits for it.
                deadline=session.deadline,
                user=session.user,
                trace=trace_of(call, session),
                # Nested back-calls have lanes of their own by depth, or a ring of plugins would
                # wait for itself.
                depth=session.depth + 1,
            )
        )
        # Also when the asking session is cancelled in the middle: the generator is closed, and
        # with it this session.
        with closing(opened) as stream:
            while bodies := stream.take():
                for body in bodies:
                    yield from body.split(b"\n")


def open_own_answers(settings: Settings, database: Database) -> OwnAnswers:
    """The responder of this host. Called by the host's entry file; connects at first use."""
    catalogue = Catalogue(database)
    calls = Calls(settings, on_notice=catalogue.heard)
    providers = Providers(database, catalogue, Vault(settings))
    return OwnAnswers(settings, calls, catalogue, providers)


def _require_no_chosen_credential(kind: Kind, request: dict[str, Raw]) -> None:
    """NeedsDify when one of several credentials is meant: ids of them are rows of Dify's.

    Taking the one that the operator set would call in another account's name.
    """
    chosen = text_field(request, "credential_id")
    if chosen:
        raise NeedsDify(
            f"{kind.failed}credential_id {chosen[:100]!r} names a credential that Dify keeps, and "
            "TIDEGATE_BACKCALLS=self has only those of `tidegate credential set`: leave "
            "credential_id out to use that, or set DIFY_INNER_API_URL",
            call=kind.type,
        )


def _is_plugin_tool(request: dict[str, Raw]) -> bool:
    return text_field(request, "tool_type") == _PLUGIN_TOOL
