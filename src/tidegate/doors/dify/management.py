"""Management: packages, installations, install tasks, icons (spec/http/01 sections 3.5-3.16).

Business errors are HTTP 200 with a negative code, since Dify's client does not look at the body
of anything else; only what the request itself did wrong keeps its status (contract.md section 3).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, final

from msgspec import Raw

from tidegate.doors.binding import BindingRefused, PageForm, bind
from tidegate.doors.dify import forms
from tidegate.doors.dify.multipart import MultipartReader, boundary_of
from tidegate.doors.envelope import failure, success, success_bytes
from tidegate.doors.routes import Handler, Request, Response
from tidegate.doors.services import Services
from tidegate.errors import (
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    InvalidIdentifier,
    NotFound,
    TidegateError,
)
from tidegate.ids import PluginIdentifier, is_uuid
from tidegate.storage import declarations, install_tasks, installations
from tidegate.storage.blobs import Layout
from tidegate.storage.declarations import Declaration
from tidegate.storage.install_tasks import Task
from tidegate.storage.installations import Installation
from tidegate.telemetry.logs import get_log

log = get_log("doors")

_ASSET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
#: What the request itself did wrong; everything else is HTTP 200.
_KEEPS_STATUS: Final = (BindingRefused, BodyTooLarge, BodyTooSlow)


def at_200(handler: Handler) -> Handler:
    """The handler with its business errors answered as HTTP 200 and a negative code."""

    def answer(request: Request) -> Any:
        try:
            if not is_uuid(request.params["tenant_id"]):
                raise BindingRefused("the tenant in the path must be a UUID")
            return handler(request)
        except _KEEPS_STATUS:
            raise
        except TidegateError as error:
            return failure(error, status=200)

    return answer


@final
class Management:
    """Handlers of the management routes. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._layout = Layout(services.settings)
        self._icons = _Icons(services.settings.plugin_media_cache_size)

    # ------------------------------------------------------------------ packages

    def upload_package(self, request: Request) -> Response:
        """Take a .difypkg. The package is read whole, bounded by MAX_PLUGIN_PACKAGE_SIZE."""
        limit = self._settings.max_plugin_package_size
        reader = MultipartReader(boundary_of(request.header("content-type")), {"dify_pkg": limit})
        for piece in request.body.pieces():
            reader.feed(piece)
        parts = reader.finish()
        if "dify_pkg" not in parts:
            raise BadRequest("the form has no file dify_pkg")
        verify = parts.get("verify_signature") == b"true"
        tenant = request.params["tenant_id"]
        uploaded = self._services.installer.upload(tenant, parts["dify_pkg"], verify)
        return success(
            {
                "unique_identifier": str(uploaded.identifier),
                "manifest": uploaded.declaration,
                "verification": _verification(uploaded.verification),
            }
        )

    def fetch_manifest(self, request: Request) -> Response:
        """The declaration of an uploaded package, icons as asset ids."""
        form = bind(request, forms.IdentifierForm)
        with self._services.database.read() as conn:
            declaration = declarations.get(conn, form.plugin_unique_identifier)
        if declaration is None:
            raise BadRequest("plugin not found")
        return success_bytes(declaration.text.encode())

    def fetch_identifier(self, request: Request) -> Response:
        """Whether anybody installed this version."""
        form = bind(request, forms.IdentifierForm)
        with self._services.database.read() as conn:
            found = installations.is_installed_anywhere(conn, form.plugin_unique_identifier)
        return success(found)

    def asset(self, request: Request) -> Response:
        """An icon, by the id that stands in declarations."""
        name = request.params["id"]
        if _ASSET.fullmatch(name) is None:
            raise NotFound("no such asset")
        data = self._icons.get(name)
        if data is None:
            data = self._services.blobs.load(self._layout.asset(name))
            self._icons.put(name, data)
        return Response(200, data, content_type="application/octet-stream")

    # ------------------------------------------------------------------ installing

    def install(self, request: Request) -> Response:
        """Install uploaded versions; the answer names the task that Dify polls."""
        form = bind(request, forms.InstallForm)
        identifiers = form.plugin_unique_identifiers or []
        metas = [meta or {} for meta in form.metas or []]
        if len(metas) != len(identifiers):
            raise BadRequest("metas must have as many entries as plugin_unique_identifiers")
        tenant = request.params["tenant_id"]
        answer = self._services.installer.install(tenant, identifiers, form.source, metas)
        return success({"all_installed": answer.all_installed, "task_id": answer.task_id})

    def uninstall(self, request: Request) -> Response:
        """Remove one installation of the tenant; true also when there is none."""
        form = bind(request, forms.UninstallForm)
        tenant = request.params["tenant_id"]
        self._services.installer.uninstall(tenant, form.plugin_installation_id)
        return success(True)

    # ------------------------------------------------------------------ tasks

    def list_tasks(self, request: Request) -> Response:
        """A page of the tenant's install tasks, newest first."""
        form = bind(request, PageForm)
        with self._services.database.read() as conn:
            tasks, _ = install_tasks.page(
                conn, request.params["tenant_id"], form.offset, form.page_size
            )
        return success([_task(task) for task in tasks])

    def get_task(self, request: Request) -> Response:
        """One install task."""
        form = bind(request, forms.TaskForm)
        with self._services.database.read() as conn:
            task = install_tasks.get(conn, request.params["tenant_id"], form.id)
        if task is None:
            raise NotFound("install task: record not found")
        return success(_task(task))

    def delete_task(self, request: Request) -> Response:
        """Delete a task; true also when there is none."""
        form = bind(request, forms.TaskForm)
        with self._services.database.write() as conn:
            install_tasks.delete(conn, request.params["tenant_id"], form.id)
        return success(True)

    def delete_all_tasks(self, request: Request) -> Response:
        """Delete all tasks of the tenant, running ones too."""
        with self._services.database.write() as conn:
            install_tasks.delete_all(conn, request.params["tenant_id"])
        return success(True)

    def delete_task_entry(self, request: Request) -> Response:
        """Delete one plugin of a task; true also when there is none."""
        form = bind(request, forms.TaskEntryForm)
        try:
            identifier = str(PluginIdentifier.parse(form.identifier.lstrip("/")))
        except InvalidIdentifier as error:
            raise BadRequest(error.message) from None
        with self._services.database.write() as conn:
            install_tasks.delete_entry(conn, request.params["tenant_id"], form.id, identifier)
        return success(True)

    # ------------------------------------------------------------------ lists

    def list_plugins(self, request: Request) -> Response:
        """A page of the tenant's installations with their declarations, newest first."""
        form = bind(request, PageForm)
        with self._services.database.read() as conn:
            rows, total = installations.page(
                conn, request.params["tenant_id"], form.offset, form.page_size
            )
            found = declarations.get_many(conn, [row.identifier for row in rows])
        return success({"list": _plugins(rows, found), "total": total})


def _plugins(rows: list[Installation], found: Mapping[str, Declaration]) -> list[dict[str, Any]]:
    """The list's entries; a row that cannot be shown is left out, not the whole list (D-13)."""
    shown = []
    for row in rows:
        declaration = found.get(row.identifier)
        try:
            identifier = PluginIdentifier.parse(row.identifier)
        except InvalidIdentifier:
            declaration = None
        if declaration is None:
            log.error("installation without a usable declaration", identifier=row.identifier)
            continue
        shown.append(_plugin(row, identifier, declaration))
    return shown


def _plugin(
    row: Installation, identifier: PluginIdentifier, declaration: Declaration
) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": identifier.name,
        "plugin_id": row.plugin_id,
        "tenant_id": row.tenant,
        "plugin_unique_identifier": row.identifier,
        "endpoints_active": row.endpoints_active,
        "endpoints_setups": row.endpoints_setups,
        "installation_id": row.id,
        "declaration": Raw(declaration.text.encode()),
        "runtime_type": row.runtime_type,
        "version": identifier.version,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "source": row.source,
        "checksum": identifier.checksum,
        "meta": row.meta,
    }


def _task(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "status": task.status,
        "tenant_id": task.tenant,
        "total_plugins": task.total_plugins,
        "completed_plugins": task.completed_plugins,
        "plugins": [
            {
                "plugin_unique_identifier": one.identifier,
                "labels": dict(one.labels),
                "icon": one.icon,
                "icon_dark": one.icon_dark,
                "plugin_id": one.plugin_id,
                "status": one.status,
                "message": one.message,
                "source": one.source,
            }
            for one in task.plugins
        ],
    }


def _verification(verification: Any) -> dict[str, str] | None:
    if verification is None:
        return None
    return {"authorized_category": str(verification.authorized_category)}


@final
class _Icons:
    """The icons asked for last. Their names are content hashes, so none can become stale."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    def get(self, name: str) -> bytes | None:
        data = self._entries.get(name)
        if data is not None:
            self._entries.move_to_end(name)
        return data

    def put(self, name: str, data: bytes) -> None:
        self._entries[name] = data
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
