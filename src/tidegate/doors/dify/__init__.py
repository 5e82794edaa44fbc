"""The door that Dify's API server uses: the routes of its plugin daemon, byte for byte.

:func:`dify_routes` gives the rows; ``api`` serves them.

* ``management`` - packages, installations, tasks, icons
* ``dispatch`` - calls of plugins, one row of ``actions`` each
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tidegate.doors.dify.actions import ACTIONS, Action
from tidegate.doors.dify.dispatch import Dispatcher
from tidegate.doors.dify.management import Management, at_200
from tidegate.doors.routes import BodyRule, Handler, Kind, Route
from tidegate.doors.services import Services

__all__ = ["ACTIONS", "Action", "Dispatcher", "dify_routes"]

_TENANT = "/plugin/{tenant_id}"
_MANAGEMENT = _TENANT + "/management"
_DISPATCH = _TENANT + "/dispatch/"


def dify_routes(services: Services, dispatcher: Dispatcher) -> list[Route]:
    """All rows of this door. Called once per process."""
    return [*_management_routes(Management(services)), *_dispatch_routes(dispatcher)]


def _management_routes(door: Management) -> list[Route]:
    json, multipart = BodyRule.JSON, BodyRule.MULTIPART
    rows: list[tuple[str, str, Handler, BodyRule, str]] = [
        ("POST", "/install/upload/package", door.upload_package, multipart, "Upload a .difypkg."),
        ("POST", "/install/identifiers", door.install, json, "Install uploaded versions."),
        ("GET", "/install/tasks", door.list_tasks, json, "Page of install tasks."),
        ("POST", "/install/tasks/delete_all", door.delete_all_tasks, json, "Delete all tasks."),
        ("GET", "/install/tasks/{id}", door.get_task, json, "One install task."),
        ("POST", "/install/tasks/{id}/delete", door.delete_task, json, "Delete a task."),
        (
            "POST",
            "/install/tasks/{id}/delete/{identifier...}",
            door.delete_task_entry,
            json,
            "Delete one plugin of a task.",
        ),
        ("GET", "/list", door.list_plugins, json, "Page of the tenant's installations."),
        ("GET", "/fetch/manifest", door.fetch_manifest, json, "Declaration of a version."),
        ("GET", "/fetch/identifier", door.fetch_identifier, json, "Whether anybody installed it."),
        ("POST", "/uninstall", door.uninstall, json, "Remove an installation."),
    ]
    routes = [
        Route(method, _MANAGEMENT + path, at_200(handler), docs, body=body)
        for method, path, handler, body, docs in rows
    ]
    icon = Route("GET", _TENANT + "/asset/{id}", door.asset, "An icon.", kind=Kind.RAW)
    return [*routes, icon]


def _dispatch_routes(dispatcher: Dispatcher) -> list[Route]:
    return [
        route
        for action in ACTIONS
        for route in (_polling(action, dispatcher) if action.plain else _calls(action, dispatcher))
    ]


def _calls(action: Action, dispatcher: Dispatcher) -> Iterator[Route]:
    prefixes = (
        (_DISPATCH, dispatcher.for_tenant, "X-Plugin-ID"),
        ("/v2/invoke/dispatch/", dispatcher.for_identifier, "X-Plugin-Unique-Identifier"),
    )
    for prefix, handler, header in prefixes:
        docs = f"{action.type}/{action.action} of the plugin in {header}; chunks: {action.chunk}."
        yield Route(
            "POST",
            prefix + action.path,
            partial(handler, action),
            docs,
            body=BodyRule.JSON,
            kind=Kind.STREAM,
        )


def _polling(action: Action, dispatcher: Dispatcher) -> Iterator[Route]:
    docs = f"{action.type}/{action.action} of the plugin in X-Plugin-ID: {action.chunk}."
    handler = partial(dispatcher.for_poll, action)
    yield Route("POST", _DISPATCH + action.path, handler, docs, body=BodyRule.JSON)
