"""Every row of this door that is always there: method, path, handler, form, one line of docs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType

from tidegate.doors.binding import Form, PageForm
from tidegate.doors.dify import forms
from tidegate.doors.dify.action import Action
from tidegate.doors.dify.actions import ACTIONS
from tidegate.doors.dify.capabilities import Capabilities
from tidegate.doors.dify.dispatch import Dispatcher, request_form
from tidegate.doors.dify.endpoints import Endpoints
from tidegate.doors.dify.lists import Lists
from tidegate.doors.dify.management import Management, at_200
from tidegate.doors.dify.packages import Packages
from tidegate.doors.dify.webhook import METHODS, Webhooks
from tidegate.doors.routes import Auth, BodyLimit, BodyRule, Handler, Kind, Route
from tidegate.doors.services import Services

_TENANT = "/plugin/{tenant_id}"
_MANAGEMENT = _TENANT + "/management"
_DISPATCH = _TENANT + "/dispatch/"
_BY_PLUGIN = "X-Plugin-ID"
_BY_IDENTIFIER = "X-Plugin-Unique-Identifier"


def dify_routes(services: Services, dispatcher: Dispatcher) -> list[Route]:
    """All rows of this door. Called once per process."""
    packages = Packages(services)
    rows = [
        *_upload_routes(packages),
        *_package_routes(packages),
        *_management_routes(Management(services)),
        *_list_routes(Lists(services)),
        *_capability_routes(Capabilities(services)),
        *_endpoint_routes(Endpoints(services)),
        *_dispatch_routes(dispatcher),
    ]
    if services.settings.plugin_endpoint_enabled:
        rows += _hook_routes(Webhooks(services))
    return rows


type _Row = tuple[str, str, Handler, type[Form] | None, str]


def _rows(
    prefix: str, rows: list[_Row], limits: Mapping[str, BodyLimit] = MappingProxyType({})
) -> list[Route]:
    """Rows of a tenant, whose business errors are HTTP 200. ``limits`` of bodies, by path."""
    return [
        Route(
            method,
            prefix + path,
            at_200(handler),
            docs,
            body=_body_of(form),
            form=form,
            limit=limits.get(path),
        )
        for method, path, handler, form, docs in rows
    ]


def _body_of(form: type[Form] | None) -> BodyRule:
    if form is None:
        return BodyRule.NONE
    return BodyRule.MULTIPART if issubclass(form, forms.UploadForm) else BodyRule.JSON


def _upload_routes(door: Packages) -> list[Route]:
    rows: list[_Row] = [
        (
            "POST",
            "/install/upload/package",
            door.upload_package,
            forms.PackageForm,
            "Upload a .difypkg.",
        ),
        (
            "POST",
            "/install/upload/bundle",
            door.upload_bundle,
            forms.BundleForm,
            "Upload a .difybndl.",
        ),
    ]
    return _rows(_MANAGEMENT, rows, door.limits)


def _package_routes(door: Packages) -> list[Route]:
    rows: list[_Row] = [
        (
            "GET",
            "/decode/from_identifier",
            door.decode,
            forms.IdentifierForm,
            "What is in an uploaded package.",
        ),
        (
            "GET",
            "/fetch/manifest",
            door.fetch_manifest,
            forms.IdentifierForm,
            "Declaration of a version.",
        ),
        (
            "GET",
            "/fetch/identifier",
            door.fetch_identifier,
            forms.IdentifierForm,
            "Whether anybody installed it.",
        ),
        ("GET", "/fetch/readme", door.readme, forms.ReadmeForm, "Readme of a version."),
    ]
    extract = "What is in an uploaded package, named in X-Plugin-Unique-Identifier."
    return [
        *_rows(_MANAGEMENT, rows),
        Route("GET", "/v2/invoke/extract", door.extract, extract, header=_BY_IDENTIFIER),
        Route("GET", _TENANT + "/asset/{id}", door.asset, "An icon.", kind=Kind.RAW),
        Route(
            "GET",
            _TENANT + "/extract-asset/",
            door.extract_asset,
            "A file of an uploaded package.",
            body=BodyRule.JSON,
            kind=Kind.RAW,
            form=forms.PackageFileForm,
        ),
    ]


def _management_routes(door: Management) -> list[Route]:
    rows: list[_Row] = [
        (
            "POST",
            "/install/identifiers",
            door.install,
            forms.InstallForm,
            "Install uploaded versions.",
        ),
        ("POST", "/install/upgrade", door.upgrade, forms.UpgradeForm, "Move to another version."),
        ("GET", "/install/tasks", door.list_tasks, PageForm, "Page of install tasks."),
        ("POST", "/install/tasks/delete_all", door.delete_all_tasks, None, "Delete all tasks."),
        ("GET", "/install/tasks/{id}", door.get_task, forms.TaskForm, "One install task."),
        ("POST", "/install/tasks/{id}/delete", door.delete_task, forms.TaskForm, "Delete a task."),
        (
            "POST",
            "/install/tasks/{id}/delete/{identifier...}",
            door.delete_task_entry,
            forms.TaskEntryForm,
            "Delete one plugin of a task.",
        ),
        ("POST", "/uninstall", door.uninstall, forms.UninstallForm, "Remove an installation."),
    ]
    return _rows(_MANAGEMENT, rows)


def _list_routes(door: Lists) -> list[Route]:
    rows: list[_Row] = [
        ("GET", "/list", door.page, PageForm, "Page of the tenant's installations."),
        (
            "GET",
            "/{category}/list",
            door.of_category,
            forms.CategoryListForm,
            "Page of one category.",
        ),
        ("GET", "/installation/ids", door.ids, forms.CategoryForm, "Plugin ids of one category."),
        (
            "POST",
            "/installation/fetch/batch",
            door.batch,
            forms.PluginIdsForm,
            "Installations of plugins.",
        ),
        (
            "POST",
            "/installation/missing",
            door.missing,
            forms.IdentifiersForm,
            "Versions that are missing.",
        ),
    ]
    return _rows(_MANAGEMENT, rows)


def _capability_routes(door: Capabilities) -> list[Route]:
    rows: list[_Row] = [
        ("GET", "/models", partial(door.page, "model"), PageForm, "Page of model providers."),
        ("GET", "/models/bindings", door.model_bindings, None, "Who serves model providers."),
        (
            "POST",
            "/tools/check_existence",
            door.tools_exist,
            forms.ProviderIdsForm,
            "Which tools are there.",
        ),
    ]
    for kind, several in (
        ("tool", "tools"),
        ("agent_strategy", "agent_strategies"),
        ("datasource", "datasources"),
        ("trigger", "triggers"),
    ):
        shown = kind.replace("_", " ")
        page, one = partial(door.page, kind), partial(door.one, kind)
        rows.append(("GET", f"/{several}", page, PageForm, f"Page of {shown} providers."))
        rows.append(("GET", f"/{kind}", one, forms.ProviderForm, f"One {shown} provider."))
    return _rows(_MANAGEMENT, rows)


def _endpoint_routes(door: Endpoints) -> list[Route]:
    rows: list[_Row] = [
        ("POST", "/setup", door.set_up, forms.EndpointSetupForm, "A new endpoint."),
        (
            "POST",
            "/update",
            door.update,
            forms.EndpointUpdateForm,
            "Other settings of an endpoint.",
        ),
        ("POST", "/remove", door.remove, forms.EndpointForm, "Remove an endpoint."),
        ("POST", "/enable", door.enable, forms.EndpointForm, "Switch an endpoint on."),
        ("POST", "/disable", door.disable, forms.EndpointForm, "Switch an endpoint off."),
        ("GET", "/list", door.page, forms.EndpointPageForm, "Page of endpoints."),
        (
            "GET",
            "/list/plugin",
            door.page_of_plugin,
            forms.EndpointsOfPluginForm,
            "Page of one plugin's endpoints.",
        ),
    ]
    return _rows(_TENANT + "/endpoint", rows)


def _hook_routes(door: Webhooks) -> list[Route]:
    docs = "A webhook, answered by its plugin."
    return [
        Route(
            method,
            "/e/{hook_id}/{path...}",
            door.knock,
            docs,
            Auth.NONE,
            body=BodyRule.RAW,
            kind=Kind.RAW,
            limit=door.limit,
        )
        for method in METHODS
    ]


def _dispatch_routes(dispatcher: Dispatcher) -> list[Route]:
    return [
        route
        for action in ACTIONS
        for route in (_polling(action, dispatcher) if action.plain else _calls(action, dispatcher))
    ]


def _calls(action: Action, dispatcher: Dispatcher) -> Iterator[Route]:
    prefixes = (
        (_DISPATCH, dispatcher.for_tenant, _BY_PLUGIN),
        ("/v2/invoke/dispatch/", dispatcher.for_identifier, _BY_IDENTIFIER),
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
            form=request_form(action),
            header=header,
        )


def _polling(action: Action, dispatcher: Dispatcher) -> Iterator[Route]:
    docs = f"{action.type}/{action.action} of the plugin in X-Plugin-ID: {action.chunk}."
    handler = partial(dispatcher.for_poll, action)
    yield Route(
        "POST",
        _DISPATCH + action.path,
        handler,
        docs,
        body=BodyRule.JSON,
        form=request_form(action),
        header=_BY_PLUGIN,
    )
