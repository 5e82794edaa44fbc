"""What a tenant's plugins offer: models, tools, agents, datasources, triggers (01 section 3.14).

Lists and single providers are ready bytes, as those of :mod:`.lists`.
"""

from __future__ import annotations

from typing import Any, final

from msgspec import Raw

from tidegate.doors.binding import PageForm, bind
from tidegate.doors.dify import forms
from tidegate.doors.dify.times import Times
from tidegate.doors.envelope import encode, success, success_bytes
from tidegate.doors.routes import Request, Response
from tidegate.doors.services import Services
from tidegate.errors import InvalidIdentifier, PluginNotFound
from tidegate.ids import PluginIdentifier
from tidegate.storage import capabilities
from tidegate.storage.capabilities import Capability, ModelBinding


@final
class Capabilities:
    """Handlers about providers; ``kind`` is bound by the rows. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ready = services.catalogue.remember
        self._times = Times(services.settings)

    def page(self, kind: str, request: Request) -> Response:
        """A page of the tenant's providers of one kind, newest first."""
        form = bind(request, PageForm)
        tenant = request.params["tenant_id"]

        def make() -> bytes:
            with self._services.database.read() as conn:
                found = capabilities.page(conn, tenant, kind, form.offset, form.page_size)
            return encode([_provider(one, self._times) for one in found])

        return success_bytes(self._ready((kind, tenant, form.page, form.page_size), make))

    def one(self, kind: str, request: Request) -> Response:
        """One provider; PluginNotFound when the tenant has none such."""
        form = bind(request, forms.ProviderForm)
        tenant = request.params["tenant_id"]

        def make() -> bytes:
            with self._services.database.read() as conn:
                found = capabilities.find(conn, tenant, kind, form.plugin_id, form.provider)
            if found is None:
                raise PluginNotFound("plugin not found")
            return encode(_provider(found, self._times))

        key = (kind, tenant, form.plugin_id, form.provider)
        return success_bytes(self._ready(key, make))

    def model_bindings(self, request: Request) -> Response:
        """Which installation serves each model provider."""
        tenant = request.params["tenant_id"]

        def make() -> bytes:
            with self._services.database.read() as conn:
                found = capabilities.model_bindings(conn, tenant)
            return encode([_binding(one) for one in found])

        return success_bytes(self._ready(("bindings", tenant), make))

    def tools_exist(self, request: Request) -> Response:
        """Whether the tenant has each of these tool providers, in their order."""
        wanted = bind(request, forms.ProviderIdsForm).provider_ids or []
        asked = [(one.plugin_id, one.provider_name) for one in wanted]
        with self._services.database.read() as conn:
            return success(capabilities.tool_exists(conn, request.params["tenant_id"], asked))


def _provider(one: Capability, times: Times) -> dict[str, Any]:
    shown = {
        "id": one.id,
        **times.of(one),
        "tenant_id": one.tenant,
        "provider": one.provider,
        "plugin_unique_identifier": one.identifier,
        "plugin_id": one.plugin_id,
        "declaration": Raw(one.declaration),
    }
    if one.kind == "agent_strategy":
        shown["meta"] = Raw(one.meta)
    return shown


def _binding(one: ModelBinding) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "installation_id": one.installation_id,
        "plugin_id": one.plugin_id,
        "plugin_unique_identifier": one.identifier,
        "runtime_type": one.runtime_type,
        "source": one.source,
        "version": _version(one.identifier),
        "verified": one.verified,
    }


def _version(identifier: str) -> str:
    try:
        return PluginIdentifier.parse(identifier).version
    except InvalidIdentifier:
        return ""
