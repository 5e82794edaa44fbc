"""Endpoints of a tenant: set up, changed, listed (spec/http/01 section 3.15).

Secrets are encrypted before the row is written, so nothing stays behind when that fails (D-28),
and are never shown: a list has masks, and a mask that comes back stands for the secret behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import gevent
from sqlalchemy import Connection

from tidegate.clock import SYSTEM_CLOCK
from tidegate.doors.binding import bind
from tidegate.doors.dify import forms
from tidegate.doors.dify.endpoint_settings import check_settings, hidden, masked, unmasked
from tidegate.doors.dify.times import Times
from tidegate.doors.envelope import success
from tidegate.doors.routes import Request, Response
from tidegate.doors.services import Services
from tidegate.errors import NotFound, PermissionRefused, PluginNotFound, SecretsUnavailable
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage import endpoints, generation
from tidegate.storage.endpoints import Endpoint
from tidegate.telemetry.logs import get_log

log = get_log("doors")

#: Seconds in which the secrets of one list are decrypted; what is late is shown as stars. Dify
#: asks for the list and decrypts for it in the same request: neither must wait for the other.
_LIST_SECONDS: Final = 20.0
_NONE: Final[Mapping[str, Any]] = {"settings": [], "endpoints": []}


@final
@dataclass(frozen=True, slots=True)
class _Declared:
    """What a plugin declares about its endpoints. ``shown`` is its JSON."""

    identifier: str
    shown: Mapping[str, Any]
    permitted: bool

    @property
    def config(self) -> list[dict[str, Any]]:
        return list(self.shown.get("settings") or ())


@final
class Endpoints:
    """Handlers about endpoints. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._secrets = services.secrets
        self._times = Times(services.settings)

    # ------------------------------------------------------------------ changing

    def set_up(self, request: Request) -> Response:
        """A new endpoint under a new hook, enabled."""
        form = bind(request, forms.EndpointSetupForm)
        tenant, identifier = request.params["tenant_id"], form.plugin_unique_identifier
        declared = self._declared(tenant, plugin_id_of(identifier))
        if declared is None or declared.identifier != identifier:
            raise PluginNotFound(f"plugin not installed: {identifier}")
        if not declared.permitted:
            raise PermissionRefused(
                "permission denied, you need to enable endpoint access in plugin manifest"
            )
        settings = form.settings or {}
        check_settings(settings, declared.config)
        new_id = str(row_id())
        # A request to Dify, so before the transaction: nothing may wait while SQLite's only writer
        # is held.
        stored = self._secrets.encrypt(tenant, form.user_id, new_id, settings, declared.config)

        def create(conn: Connection) -> Endpoint | None:
            return endpoints.create(
                conn,
                tenant,
                identifier,
                user_id=form.user_id,
                name=form.name,
                settings=stored,
                endpoint_id=new_id,
            )

        if self._change(create) is None:
            raise PluginNotFound(f"plugin not installed: {identifier}")
        return success(True)

    def update(self, request: Request) -> Response:
        """Another name and other settings."""
        form = bind(request, forms.EndpointUpdateForm)
        tenant = request.params["tenant_id"]
        found = self._get(tenant, form.endpoint_id)
        declared = self._declared(tenant, found.plugin_id)
        if declared is None:
            raise PluginNotFound(f"plugin not installed: {found.plugin_id}")
        config, user = declared.config, form.user_id
        before = self._secrets.decrypt(tenant, user, found.id, found.settings, config)
        settings = unmasked(form.settings or {}, before, config)
        check_settings(settings, config)
        stored = self._secrets.encrypt(tenant, user, found.id, settings, config)

        def update(conn: Connection) -> Endpoint | None:
            return endpoints.update_settings(
                conn, tenant, found.id, name=form.name, settings=stored
            )

        self._must(self._change(update))
        # After the commit: until then Dify's cached clear text is still the truth.
        self._clear(found, user, config)
        return success(True)

    def remove(self, request: Request) -> Response:
        """Delete one."""
        form = bind(request, forms.EndpointForm)
        tenant = request.params["tenant_id"]
        gone = self._must(
            self._change(lambda conn: endpoints.remove(conn, tenant, form.endpoint_id))
        )
        declared = self._declared(tenant, gone.plugin_id)
        if declared is not None:
            self._clear(gone, gone.user_id, declared.config)
        return success(True)

    def enable(self, request: Request) -> Response:
        """Switch one on; the same again changes nothing."""
        return self._switch(request, enabled=True)

    def disable(self, request: Request) -> Response:
        """Switch one off; the same again changes nothing."""
        return self._switch(request, enabled=False)

    def _switch(self, request: Request, *, enabled: bool) -> Response:
        form = bind(request, forms.EndpointForm)
        tenant = request.params["tenant_id"]
        self._must(
            self._change(
                lambda conn: endpoints.set_enabled(conn, tenant, form.endpoint_id, enabled)
            )
        )
        return success(True)

    # ------------------------------------------------------------------ lists

    def page(self, request: Request) -> Response:
        """A page of the tenant's endpoints, newest first."""
        form = bind(request, forms.EndpointPageForm)
        tenant = request.params["tenant_id"]
        with self._services.database.read() as conn:
            rows = endpoints.page(conn, tenant, form.offset, form.page_size)
        return success(self._shown(rows))

    def page_of_plugin(self, request: Request) -> Response:
        """The same for one plugin."""
        form = bind(request, forms.EndpointsOfPluginForm)
        tenant = request.params["tenant_id"]
        with self._services.database.read() as conn:
            rows = endpoints.page_of_plugin(
                conn, tenant, form.plugin_id, form.offset, form.page_size
            )
        # Rows without a plugin are left over from an older daemon. None at all is an empty list,
        # as there.
        if rows and self._declared(tenant, form.plugin_id) is None:
            raise PluginNotFound(f"plugin not installed: {form.plugin_id[:300]}")
        return success(self._shown(rows))

    def _shown(self, rows: list[Endpoint]) -> list[dict[str, Any]]:
        ends_at = SYSTEM_CLOCK.monotonic() + _LIST_SECONDS
        shown = []
        for row in rows:
            declared = self._declared(row.tenant, row.plugin_id)
            if declared is None:
                shown.append(_row(row, {}, _NONE, self._times))
            else:
                visible = self._visible(row, declared, ends_at)
                shown.append(_row(row, visible, declared.shown, self._times))
        return shown

    def _visible(self, row: Endpoint, declared: _Declared, ends_at: float) -> dict[str, Any]:
        """Masked settings; remembered, since each costs a request to Dify."""
        config = declared.config

        def make() -> dict[str, Any]:
            opened = self._secrets.decrypt(row.tenant, row.user_id, row.id, row.settings, config)
            return masked(opened, config)

        left = max(0.001, ends_at - SYSTEM_CLOCK.monotonic())
        try:
            with gevent.Timeout(left, SecretsUnavailable("not decrypted in time")):
                return self._services.catalogue.remember(("masked", row.id), make)
        except SecretsUnavailable as error:
            log.warning("secrets of an endpoint not shown", endpoint=row.id, error=error.message)
            return hidden(row.settings, config)

    # ------------------------------------------------------------------ parts

    def _declared(self, tenant: str, plugin_id: str) -> _Declared | None:
        """None when the tenant has not the plugin."""
        known = self._services.catalogue.installation(tenant, plugin_id)
        if known is None:
            return None
        permission = (known.declaration.get("resource") or {}).get("permission") or {}
        permitted = bool((permission.get("endpoint") or {}).get("enabled"))
        return _Declared(known.identifier, known.declaration.get("endpoint") or _NONE, permitted)

    def _get(self, tenant: str, endpoint_id: str) -> Endpoint:
        with self._services.database.read() as conn:
            return self._must(endpoints.get(conn, tenant, endpoint_id))

    @staticmethod
    def _must(found: Endpoint | None) -> Endpoint:
        if found is None:
            raise NotFound("endpoint not found")
        return found

    def _change(self, change: Callable[[Connection], Endpoint | None]) -> Endpoint | None:
        with self._services.database.write() as conn:
            changed = change(conn)
            # In the same transaction: the number that this change made, not that of somebody after
            # it.
            now = generation.current(conn)
        self._services.installer.changed(now)
        return changed

    def _clear(self, row: Endpoint, user: str, config: list[dict[str, Any]]) -> None:
        """Dify forgets what it keeps; when it does not hear it, its own time limit does."""
        try:
            self._secrets.clear(row.tenant, user, row.id, row.settings, config)
        except SecretsUnavailable as error:
            log.warning("dify not told to forget", endpoint=row.id, error=error.message)


def _row(
    row: Endpoint, settings: Mapping[str, Any], declaration: Mapping[str, Any], times: Times
) -> dict[str, Any]:
    return {
        "id": row.id,
        **times.of(row),
        "name": row.name,
        "hook_id": row.hook_id,
        "tenant_id": row.tenant,
        "user_id": row.user_id,
        "plugin_id": row.plugin_id,
        "expired_at": times.local(row.expired_at),
        "enabled": row.enabled,
        "settings": settings,
        "declaration": declaration,
    }
