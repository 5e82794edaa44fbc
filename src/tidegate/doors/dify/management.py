"""Management: installing, upgrading, uninstalling, and their tasks (spec/http/01 section 3.7-3.12).

Business errors are HTTP 200 with a negative code, since Dify's client does not look at the body
of anything else; only what the request itself did wrong keeps its status (contract.md section 3).
"""

from __future__ import annotations

from typing import Any, Final, final

from tidegate.doors.binding import BindingRefused, PageForm, bind
from tidegate.doors.dify import forms
from tidegate.doors.dify.times import Times
from tidegate.doors.envelope import failure, success
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
from tidegate.storage import install_tasks
from tidegate.storage.install_tasks import Task

#: What the request itself did wrong; everything else is HTTP 200.
_KEEPS_STATUS: Final = (BindingRefused, BodyTooLarge, BodyTooSlow)


def at_200(handler: Handler) -> Handler:
    """The handler with its business errors answered as HTTP 200 and a negative code."""

    def answer(request: Request) -> Any:
        try:
            # Here, so that no handler of this table can forget it: the tenant becomes a key of
            # rows and caches (D-67).
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
    """Handlers of the routes that change installations. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._times = Times(services.settings)

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

    def upgrade(self, request: Request) -> Response:
        """Move the tenant to another version, up or down; a task where that takes time."""
        form = bind(request, forms.UpgradeForm)
        answer = self._services.installer.upgrade(
            request.params["tenant_id"],
            form.original_plugin_unique_identifier,
            form.new_plugin_unique_identifier,
            form.source,
            form.meta,
        )
        return success({"all_installed": answer.all_installed, "task_id": answer.task_id})

    def uninstall(self, request: Request) -> Response:
        """Remove one installation of the tenant; true also when there is none."""
        form = bind(request, forms.UninstallForm)
        tenant = request.params["tenant_id"]
        if not is_uuid(form.plugin_installation_id):
            raise BadRequest("plugin_installation_id must be a UUID")
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
        return success([_task(task, self._times) for task in tasks])

    def get_task(self, request: Request) -> Response:
        """One install task."""
        form = bind(request, forms.TaskForm)
        with self._services.database.read() as conn:
            task = install_tasks.get(conn, request.params["tenant_id"], form.id)
        if task is None:
            raise NotFound("install task: record not found")
        return success(_task(task, self._times))

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


def _task(task: Task, times: Times) -> dict[str, Any]:
    return {
        "id": task.id,
        **times.of(task),
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
