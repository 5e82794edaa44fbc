"""Every route, asked in six ways: right, with a wrong key, with a field missing, for a foreign
tenant, about a plugin that is not there, with a body that is too large (test_routes_bodies.py).
What comes back is held against spec/http/01 (and contract.md section 6 for foreign tenants).
Dispatch routes are held against the same in test_actions.py and test_door_dispatch.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Backend
from tests.integration.door_world import OTHER_TENANT, TENANT, World, error_of, opened, world
from tidegate.packages import build_package

HELLO = build_package(Path(__file__).parents[2] / "examples" / "hello")
NO_ID = "0198c5d2-0000-7000-8000-000000000000"
ABSENT = "a/b:0.0.1@" + "0" * 64
HOOKED = "acme/hooked:0.1.0@" + "9f" * 32
OTHER_HOOKED = "acme/hooked:0.2.0@" + "9e" * 32
HOOKED_DECLARATION = {
    "version": "0.1.0",
    "label": {"en_US": "Hooked"},
    "tags": ["search"],
    "meta": {"version": "0.0.1", "runner": {"language": "python"}},
    "resource": {"permission": {"endpoint": {"enabled": True}}},
    "endpoint": {"settings": [], "endpoints": []},
}
KINDS = ("tool", "agent_strategy", "datasource", "trigger", "model")
BODY_LIMIT = 300_000
FILE_LIMIT = 400_000

type Outcome = tuple[int, int, str]
BAD = (400, -400, "PluginDaemonBadRequestError")
REFUSED = (200, -400, "PluginDaemonBadRequestError")
MISSING = (200, -404, "PluginDaemonNotFoundError")
NO_PLUGIN = (200, -404, "PluginNotFoundError")
FAILED = (200, -500, "PluginDaemonInternalServerError")
UNAUTHORIZED = (401, -401, "PluginDaemonUnauthorizedError")


@dataclass
class Case:
    """One route. ``absent`` and ``foreign`` are what is answered: an error, or the data."""

    route: str
    right: Callable[[Case], Any] | Any
    sent: dict[str, Any] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    missing: Outcome = BAD
    absent: Any = None
    absent_sent: dict[str, Any] = field(default_factory=dict)
    absent_params: dict[str, str] = field(default_factory=dict)
    foreign: Any = None
    raw: bool = False
    form: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    reads: bool = True

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def pattern(self) -> str:
        return self.route.partition(" ")[2]


PAGE = {"page": 1, "page_size": 10}
M = "/plugin/{tenant_id}/management/"
E = "/plugin/{tenant_id}/endpoint/"
HELLO_ID: dict[str, str] = {}


def has(**wanted: Any) -> Callable[[Any], bool]:
    return lambda data: {name: data.get(name) for name in wanted} == wanted


def of_kind(kind: str, several: str) -> list[Case]:
    """The list and the single look-up of one kind of provider."""
    plugin = f"acme/{kind}s"
    rows: Any = lambda data: [one["plugin_id"] for one in data][-1:] == [plugin]  # noqa: E731
    cases = [
        Case(f"GET {M}{several}", rows, PAGE, needs="page", foreign=[]),
    ]
    if kind != "model":
        cases.append(
            Case(
                f"GET {M}{kind}",
                has(plugin_id=plugin, provider="p", tenant_id=TENANT),
                {"plugin_id": plugin, "provider": "p"},
                needs="provider",
                absent=NO_PLUGIN,
                absent_sent={"plugin_id": "a/b"},
                foreign=NO_PLUGIN,
            )
        )
    return cases


CASES = [
    # packages: shared by all tenants
    Case(
        f"POST {M}install/upload/package",
        lambda data: data["unique_identifier"] == HELLO_ID["hello"],
        form="dify_pkg", missing=REFUSED, foreign=..., needs="dify_pkg",
    ),
    Case(
        f"POST {M}install/upload/bundle", lambda data: data == [],
        form="dify_bundle", missing=REFUSED, foreign=..., needs="dify_bundle",
    ),
    Case(
        f"GET {M}decode/from_identifier",
        lambda data: data["unique_identifier"] == HELLO_ID["hello"]
        and data["verification"] is None and data["manifest"]["icon"] == "icon.svg",
        {"plugin_unique_identifier": "HELLO"}, needs="plugin_unique_identifier",
        absent=REFUSED, absent_sent={"plugin_unique_identifier": ABSENT}, foreign=...,
    ),
    Case(
        f"GET {M}fetch/manifest", has(name="hello"), {"plugin_unique_identifier": "HELLO"},
        needs="plugin_unique_identifier", absent=REFUSED,
        absent_sent={"plugin_unique_identifier": ABSENT}, foreign=...,
    ),
    Case(
        f"GET {M}fetch/identifier", lambda data: data is False,
        {"plugin_unique_identifier": "HELLO"}, needs="plugin_unique_identifier", absent=False,
        absent_sent={"plugin_unique_identifier": ABSENT}, foreign=...,
    ),
    Case(
        f"GET {M}fetch/readme",
        lambda data: data["language"] == "en_US" and len(data["content"]) > 10,
        {"plugin_unique_identifier": "HELLO", "language": "ja_JP"},
        needs="plugin_unique_identifier", absent=MISSING,
        absent_sent={"plugin_unique_identifier": ABSENT}, foreign=...,
    ),
    Case(
        "GET /v2/invoke/extract", lambda data: data["unique_identifier"] == HELLO_ID["hello"],
        headers={"X-Plugin-Unique-Identifier": "HELLO"}, needs="X-Plugin-Unique-Identifier",
        absent=REFUSED, absent_sent={"X-Plugin-Unique-Identifier": ABSENT}, foreign=...,
        reads=False,
    ),
    Case(
        "GET /plugin/{tenant_id}/asset/{id}", lambda data: b"<svg" in data, raw=True,
        params={"id": "ICON"}, absent=(404, -404, "PluginDaemonNotFoundError"),
        absent_params={"id": "0" * 64 + ".svg"}, foreign=..., reads=False,
    ),
    Case(
        "GET /plugin/{tenant_id}/extract-asset/", lambda data: b"<svg" in data,
        {"plugin_unique_identifier": "HELLO", "file_path": "icon.svg"}, raw=True,
        needs="file_path", absent=(500, -500, "PluginDaemonInternalServerError"),
        absent_sent={"plugin_unique_identifier": ABSENT}, foreign=...,
    ),
    # installing
    Case(
        f"POST {M}install/identifiers", has(all_installed=True, task_id=""),
        {"plugin_unique_identifiers": [HOOKED], "source": "package", "metas": [{}]},
        needs="source", absent=FAILED, absent_sent={"plugin_unique_identifiers": [ABSENT]},
        foreign=lambda data: data["all_installed"] is False,
    ),
    Case(
        f"POST {M}install/upgrade", lambda data: data["all_installed"] is False,
        {"original_plugin_unique_identifier": HOOKED,
         "new_plugin_unique_identifier": OTHER_HOOKED, "source": "package"},
        needs="source", absent=MISSING,
        absent_sent={"original_plugin_unique_identifier": ABSENT,
                     "new_plugin_unique_identifier": ABSENT.replace("0.0.1", "0.0.2")},
        foreign=MISSING,
    ),
    Case(
        f"GET {M}install/tasks", lambda data: isinstance(data, list), PAGE, needs="page_size",
        foreign=lambda data: all(task["tenant_id"] == OTHER_TENANT for task in data),
    ),
    Case(f"GET {M}install/tasks/{{id}}", has(status="running"), params={"id": "TASK"},
         absent=MISSING, absent_params={"id": NO_ID}, foreign=MISSING),
    Case(f"POST {M}install/tasks/{{id}}/delete/{{identifier...}}", lambda data: data is True,
         params={"id": "TASK", "identifier...": HOOKED}, absent=True,
         absent_params={"id": NO_ID, "identifier...": ABSENT}, foreign=True),
    Case(f"POST {M}install/tasks/{{id}}/delete", lambda data: data is True,
         params={"id": "TASK"}, absent=True, absent_params={"id": NO_ID}, foreign=True),
    Case(f"POST {M}install/tasks/delete_all", lambda data: data is True, foreign=True,
         reads=False),
    Case(f"POST {M}uninstall", lambda data: data is True, {"plugin_installation_id": NO_ID},
         needs="plugin_installation_id", foreign=True),
    # lists
    Case(f"GET {M}list", lambda data: data["total"] == len(data["list"]) == 6, PAGE,
         needs="page", foreign=lambda data: data == {"list": [], "total": 0}),
    Case(f"GET {M}{{category}}/list",
         lambda data: [one["name"] for one in data["list"]] == ["hooked"]
         and data["has_more"] is False,
         {**PAGE, "tags": ["search", "image"], "query": "HOOK", "language": "en_US"},
         params={"category": "extension"}, needs="page", absent=REFUSED,
         absent_params={"category": "models"},
         foreign=lambda data: data == {"list": [], "has_more": False}),
    Case(f"GET {M}installation/ids", has(plugin_ids=["acme/tools"]), {"category": "tool"},
         needs="category", absent=REFUSED, absent_sent={"category": "nope"},
         foreign=lambda data: data == {"plugin_ids": []}),
    Case(f"POST {M}installation/fetch/batch",
         lambda data: [one["plugin_unique_identifier"] for one in data] == [HOOKED],
         {"plugin_ids": ["acme/hooked", "x/y"]}, needs="plugin_ids", absent=[],
         absent_sent={"plugin_ids": ["a/b"]}, foreign=[]),
    Case(f"POST {M}installation/missing",
         lambda data: data == [
             {"plugin_unique_identifier": OTHER_HOOKED, "current_identifier": HOOKED}],
         {"plugin_unique_identifiers": [HOOKED, OTHER_HOOKED]},
         needs="plugin_unique_identifiers",
         absent=lambda data: data == [
             {"plugin_unique_identifier": ABSENT, "current_identifier": ""}],
         absent_sent={"plugin_unique_identifiers": [ABSENT]},
         foreign=lambda data: [one["current_identifier"] for one in data] == ["", ""]),
    Case(f"GET {M}models/bindings",
         lambda data: [one["plugin_id"] for one in data] == ["acme/models"], foreign=[],
         reads=False),
    Case(f"POST {M}tools/check_existence", lambda data: data == [True, False],
         {"provider_ids": [{"plugin_id": "acme/tools", "provider_name": "p"},
                           {"plugin_id": "acme/tools", "provider_name": "x"}]},
         needs="provider_ids", absent=[False],
         absent_sent={"provider_ids": [{"plugin_id": "a/b", "provider_name": "p"}]},
         foreign=[False, False]),
    *of_kind("tool", "tools"),
    *of_kind("agent_strategy", "agent_strategies"),
    *of_kind("datasource", "datasources"),
    *of_kind("trigger", "triggers"),
    *of_kind("model", "models"),
    # endpoints
    Case(f"POST {E}setup", lambda data: data is True,
         {"plugin_unique_identifier": HOOKED, "user_id": "u", "name": "n", "settings": {}},
         needs="name", absent=NO_PLUGIN, absent_sent={"plugin_unique_identifier": ABSENT},
         foreign=NO_PLUGIN),
    Case(f"GET {E}list", lambda data: len(data) >= 1, PAGE, needs="page", foreign=[]),
    Case(f"GET {E}list/plugin", lambda data: len(data) >= 1,
         {**PAGE, "plugin_id": "acme/hooked"}, needs="plugin_id", absent=[],
         absent_sent={"plugin_id": "a/b"}, foreign=[]),
    Case(f"POST {E}update", lambda data: data is True,
         {"endpoint_id": "ENDPOINT", "user_id": "u", "name": "n", "settings": {}},
         needs="endpoint_id", absent=MISSING, absent_sent={"endpoint_id": NO_ID},
         foreign=MISSING),
    *(
        Case(f"POST {E}{deed}", lambda data: data is True, {"endpoint_id": "ENDPOINT"},
             needs="endpoint_id", absent=MISSING, absent_sent={"endpoint_id": NO_ID},
             foreign=MISSING)
        for deed in ("disable", "enable", "remove")
    ),
]  # fmt: skip
BY_ROUTE = {case.route: case for case in CASES}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Any:
    folder = tmp_path_factory.mktemp("door")
    environ = {
        "FORCE_VERIFYING_SIGNATURE": "false",
        "TIDEGATE_MAX_BODY": str(BODY_LIMIT),
        "TIDEGATE_BODY_TIMEOUT": "0.3",
        "MAX_PLUGIN_PACKAGE_SIZE": str(FILE_LIMIT),
        "MAX_BUNDLE_PACKAGE_SIZE": str(FILE_LIMIT),
    }
    with backend.fresh() as servers, world(folder, {}, **environ, **servers) as made:
        made.install(HOOKED, HOOKED_DECLARATION)
        made.declare(OTHER_HOOKED, HOOKED_DECLARATION)
        for kind in KINDS:
            provider = {"provider": "p"} if kind == "model" else {"identity": {"name": "p"}}
            made.install(f"acme/{kind}s:0.1.0@" + "8f" * 32, {kind: provider, "meta": {}})
        HELLO_ID["hello"] = str(made.services.installer.upload(TENANT, HELLO, False).identifier)
        HELLO_ID["icon"] = made.services.installer.upload(TENANT, HELLO, False).declaration["icon"]
        # what is opened at the first request belongs to the door, not to the test
        made.envelope("POST", "management/install/tasks/delete_all")
        upgrade_task(made)
        made.call("GET", f"/plugin/{TENANT}/management/list", query=PAGE)
        yield made


def upgrade_task(door: World) -> str:
    case = BY_ROUTE[f"POST {M}install/upgrade"]
    _, envelope = door.envelope("POST", "management/install/upgrade", json_body=case.sent)
    return str(envelope["data"]["task_id"])


def endpoint_id(door: World) -> str:
    case = BY_ROUTE[f"POST {E}setup"]
    door.envelope("POST", "endpoint/setup", json_body=case.sent)
    _, envelope = door.envelope("GET", "endpoint/list", query=PAGE)
    return str(envelope["data"][0]["id"])


def filled(door: World, value: Any) -> Any:
    """A value of a case with what only a running door knows."""
    if isinstance(value, dict):
        return {name: filled(door, one) for name, one in value.items()}
    makers: dict[str, Callable[[], str]] = {
        "HELLO": lambda: HELLO_ID["hello"],
        "ICON": lambda: HELLO_ID["icon"],
        "TASK": lambda: upgrade_task(door),
        "ENDPOINT": lambda: endpoint_id(door),
    }
    return makers[value]() if isinstance(value, str) and value in makers else value


def ask(door: World, case: Case, tenant: str = TENANT, **changed: Any) -> tuple[int, bytes]:
    """One request of a case; ``sent`` and ``params`` change what is right."""
    sent = filled(door, {**case.sent, **changed.pop("sent", {})})
    headers = filled(door, {**case.headers, **changed.pop("headers", {})})
    path = case.pattern.replace("{tenant_id}", tenant)
    for name, value in filled(door, {**case.params, **changed.pop("params", {})}).items():
        path = path.replace("{" + name + "}", value)
    for name in [name for name, value in {**sent, **headers}.items() if value is None]:
        sent.pop(name, None)
        headers.pop(name, None)
    if case.form:
        parts = {"verify_signature": b"false", case.form: FILES[case.form]}
        drop = changed.pop("drop", ())
        given = {name: data for name, data in parts.items() if name not in drop}
        return door.call("POST", path, **{**multipart(given), **changed})[:2]
    how = {"query": sent} if case.method == "GET" else {"json_body": sent}
    return door.call(case.method, path, headers=headers, **{**how, **changed})[:2]


def bundle() -> bytes:
    import io
    import zipfile

    manifest = "name: b\nauthor: acme\nversion: 0.0.1\ntype: bundle\ndependencies: []\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.yaml", manifest)
    return buffer.getvalue()


FILES = {"dify_pkg": HELLO, "dify_bundle": bundle()}


def multipart(parts: dict[str, bytes]) -> dict[str, Any]:
    body = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (name.encode(), content)
        for name, content in parts.items()
    )
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    return {"body": body + b"--edge--\r\n", "headers": kind}


def assert_answer(answer: tuple[int, bytes], expected: Any) -> None:
    """An error as (status, code, error_type); data by value or predicate; ... is anything good."""
    status, body = answer
    if isinstance(expected, tuple):
        assert (status, *error_of(opened(json.loads(body)))[:2]) == expected
        assert json.loads(body)["data"] is None
        return
    assert status == 200, body
    envelope = json.loads(body)
    assert (envelope["code"], envelope["message"]) == (0, "success"), envelope
    if callable(expected):
        assert expected(envelope["data"]), envelope["data"]
    elif expected is not ...:
        assert envelope["data"] == expected


def names(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.route for case in cases])


def test_every_route_of_the_table_has_its_case(door: World) -> None:
    own = {"/metrics/", "/openapi.json", "/plugin/{tenant_id}/live"}
    elsewhere = ("/debug/", "/e/", "/admin/", "/backwards-invocation/", "/health/")
    served = {
        f"{route.method} {route.pattern}"
        for route in door.application.table.routes
        if route.pattern not in own
        and not route.pattern.startswith(elsewhere)
        and "/dispatch/" not in route.pattern
        and "/debugging/" not in route.pattern
    }
    assert served == set(BY_ROUTE)


@names(CASES)
def test_a_right_request_is_answered(door: World, case: Case) -> None:
    answer = ask(door, case)
    if case.raw:
        assert answer[0] == 200
        assert case.right(answer[1])
    else:
        assert_answer(answer, case.right)


@names(CASES)
def test_a_wrong_key_is_401(door: World, case: Case) -> None:
    for key in ("wrong", ""):
        status, body = ask(door, case, key=key)
        # who guesses again and again has to wait (T-S10), and is answered in the same way
        assert status in (401, 429)
        assert error_of(opened(json.loads(body)))[:2] == UNAUTHORIZED[1:]


@names([case for case in CASES if case.needs])
def test_a_missing_field_is_told(door: World, case: Case) -> None:
    if case.form:
        answer = ask(door, case, drop=(case.needs,))
    elif case.headers:
        answer = ask(door, case, headers={case.needs: None})
    else:
        answer = ask(door, case, sent={case.needs: None})
    assert_answer(answer, case.missing)


@names([case for case in CASES if "{tenant_id}" in case.pattern])
def test_T_S11_a_foreign_tenant_sees_and_changes_nothing(door: World, case: Case) -> None:
    before = [door.envelope("GET", path, query=PAGE)[1] for path in ("management/list",)]
    answer = ask(door, case, tenant=OTHER_TENANT)
    if case.raw:
        assert answer[0] == 200
    else:
        assert_answer(answer, case.foreign)
    if case.pattern.endswith("endpoint/{id}"):
        return
    after = [door.envelope("GET", path, query=PAGE)[1] for path in ("management/list",)]
    strip = ("endpoints_setups", "endpoints_active")
    for envelope in (*before, *after):
        for row in envelope["data"]["list"]:
            for name in strip:
                row.pop(name)
    assert after == before


@names([case for case in CASES if case.absent is not None])
def test_an_absent_plugin_is_told(door: World, case: Case) -> None:
    changed = {"headers": case.absent_sent} if case.headers else {"sent": case.absent_sent}
    assert_answer(ask(door, case, params=case.absent_params, **changed), case.absent)


@names([case for case in CASES if case.method == "GET" and case.sent])
def test_get_understands_a_query_and_json(door: World, case: Case) -> None:
    path = case.pattern.replace("{tenant_id}", TENANT)
    for name, value in filled(door, case.params).items():
        path = path.replace("{" + name + "}", value)
    answer = door.call("GET", path, json_body=filled(door, case.sent))[:2]
    if case.raw:
        assert case.right(answer[1])
    else:
        assert_answer(answer, case.right)


@pytest.mark.parametrize("how", ["query", "capital query", "body", "capital body"])
def test_clients_have_spelled_the_identifier_in_several_ways(door: World, how: str) -> None:
    name = "PluginUniqueIdentifier" if "capital" in how else "plugin_unique_identifier"
    given = {"query" if "query" in how else "json_body": {name: HELLO_ID["hello"]}}
    status, envelope = door.envelope("GET", "management/decode/from_identifier", **given)
    assert (status, envelope["code"]) == (200, 0)
