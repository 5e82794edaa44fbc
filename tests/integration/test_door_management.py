"""Management routes end to end, on real rows and blobs (spec/http/01 section 3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Backend
from tests.integration.door_world import (
    OTHER_TENANT,
    TENANT,
    WEATHER,
    WEATHER_DECLARATION,
    World,
    error_of,
    opened,
    world,
)
from tidegate.packages import build_package
from tidegate.storage import install_tasks
from tidegate.storage.install_tasks import TaskEntry

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello"
UNKNOWN = "a/b:0.0.1@" + "0" * 64
NO_ID = "0198c5d2-0000-7000-8000-000000000000"


@pytest.fixture
def door(tmp_path, backend: Backend):
    environ = {"FORCE_VERIFYING_SIGNATURE": "false"}
    with backend.fresh() as servers, world(tmp_path, {}, **environ, **servers) as made:
        yield made


@pytest.fixture(scope="module")
def package() -> bytes:
    return build_package(EXAMPLE)


def multipart(parts: dict[str, bytes]) -> dict[str, Any]:
    """A form as httpx sends it."""
    body = b""
    for name, content in parts.items():
        body += b'--edge\r\nContent-Disposition: form-data; name="%b"' % name.encode()
        if name == "dify_pkg":
            body += b'; filename="dify_pkg"\r\nContent-Type: application/octet-stream'
        body += b"\r\n\r\n" + content + b"\r\n"
    return {
        "body": body + b"--edge--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=edge"},
    }


def upload(door: World, package: bytes, verify: bytes = b"false") -> tuple[int, dict[str, Any]]:
    parts = {"verify_signature": verify, "dify_pkg": package}
    return door.envelope("POST", "management/install/upload/package", **multipart(parts))


def get(door: World, path: str, **query: Any) -> tuple[int, dict[str, Any]]:
    return door.envelope("GET", "management/" + path, query=query)


def post(door: World, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    return door.envelope("POST", "management/" + path, json_body=body)


# ------------------------------------------------------------------ upload


def test_an_upload_answers_identifier_manifest_and_verification(
    door: World, package: bytes
) -> None:
    status, answer = upload(door, package)
    assert (status, answer["code"]) == (200, 0)
    data = answer["data"]
    assert set(data) == {"unique_identifier", "manifest", "verification"}
    assert data["verification"] is None
    assert data["manifest"]["verified"] is False
    _, manifest = get(door, "fetch/manifest", plugin_unique_identifier=data["unique_identifier"])
    assert manifest["data"] == data["manifest"]


def test_an_uploaded_icon_is_served_by_the_id_in_the_manifest(door: World, package: bytes) -> None:
    icon = upload(door, package)[1]["data"]["manifest"]["icon"]
    for _ in range(2):  # from the store, then from memory
        status, body, headers = door.call("GET", f"/plugin/{TENANT}/asset/{icon}")
        assert status == 200
        assert headers["content-type"] == "application/octet-stream"
        assert b"<svg" in body


@pytest.mark.parametrize("name", ["nothing.svg", "..", "a%2Fb", "%00", "x" * 300])
def test_D_18_an_unknown_asset_is_404(door: World, name: str) -> None:
    status, body, _ = door.call("GET", f"/plugin/{TENANT}/asset/{name}")
    assert status == 404
    assert json.loads(body)["code"] in {-404, "not_found"}


def test_a_broken_package_is_200_with_a_negative_code(door: World) -> None:
    status, answer = upload(door, b"PK\x03\x04 this is no package")
    assert status == 200
    assert error_of(answer)[:2] == (-400, "PluginDaemonBadRequestError")


def test_an_unsigned_package_is_refused_where_signatures_are_asked_for(
    door: World, package: bytes
) -> None:
    status, answer = upload(door, package, verify=b"true")
    assert status == 200
    assert error_of(answer)[0] == -400
    assert "signature" in error_of(answer)[2]


@pytest.mark.parametrize(
    "request_",
    [
        {"body": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"json_body": {}},
        {"body": b""},
        multipart({"verify_signature": b"true"}),
    ],
)
def test_a_form_without_a_package_is_200_with_a_negative_code(
    door: World, request_: dict[str, Any]
) -> None:
    status, answer = door.envelope("POST", "management/install/upload/package", **request_)
    assert status == 200
    assert error_of(answer)[:2] == (-400, "PluginDaemonBadRequestError")


def test_a_package_over_the_limit_is_refused(tmp_path, package: bytes) -> None:
    with world(tmp_path, {}, MAX_PLUGIN_PACKAGE_SIZE="100") as door:
        status, answer = upload(door, package)
    assert status == 200
    assert "larger than 100 bytes" in error_of(answer)[2]


# ------------------------------------------------------------------ install


def test_installing_makes_a_task_that_can_be_polled(door: World, package: bytes) -> None:
    identifier = upload(door, package)[1]["data"]["unique_identifier"]
    body = {"plugin_unique_identifiers": [identifier], "source": "package", "metas": [{}]}
    status, answer = post(door, "install/identifiers", body)
    assert status == 200
    assert answer["data"]["all_installed"] is False
    _, one = get(door, "install/tasks/" + answer["data"]["task_id"])
    task = one["data"]
    assert list(task) == [
        "id", "created_at", "updated_at", "status", "tenant_id", "total_plugins",
        "completed_plugins", "plugins",
    ]  # fmt: skip
    assert task["created_at"].endswith("Z")
    assert (task["status"], task["total_plugins"], task["completed_plugins"]) == ("running", 1, 0)
    [entry] = task["plugins"]
    assert list(entry) == [
        "plugin_unique_identifier", "labels", "icon", "icon_dark", "plugin_id", "status",
        "message", "source",
    ]  # fmt: skip
    assert entry["plugin_unique_identifier"] == identifier
    assert get(door, "install/tasks", page=1, page_size=10)[1]["data"] == [task]


def test_what_is_installed_already_needs_no_task(door: World) -> None:
    door.install()
    body = {"plugin_unique_identifiers": [WEATHER], "source": "package", "metas": [None]}
    assert post(door, "install/identifiers", body)[1]["data"] == {
        "all_installed": True,
        "task_id": "",
    }
    body = {"plugin_unique_identifiers": [], "source": "package", "metas": []}
    assert post(door, "install/identifiers", body)[1]["data"]["all_installed"] is True


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"metas": []}, 200, -400),
        ({"plugin_unique_identifiers": [UNKNOWN]}, 200, -500),
        ({"plugin_unique_identifiers": ["x"]}, 400, -400),
        ({"plugin_unique_identifiers": [UNKNOWN] * 65}, 400, -400),
        ({"source": None}, 400, -400),
        ({"source": 5}, 400, -400),
    ],
)
def test_an_install_that_does_not_fit_is_refused(
    door: World, change: dict[str, Any], status: int, code: int
) -> None:
    body = {"plugin_unique_identifiers": [WEATHER], "source": "package", "metas": [{}]}
    found, answer = post(door, "install/identifiers", {**body, **change})
    assert (found, answer["code"]) == (status, code)


# ------------------------------------------------------------------ tasks


def make_task(door: World, *identifiers: str, tenant: str = TENANT) -> str:
    with door.services.database.write() as conn:
        return install_tasks.create(conn, tenant, [TaskEntry(one) for one in identifiers]).id


def test_deleting_works_without_a_body_and_with_the_identifier_in_the_path(door: World) -> None:
    task = make_task(door, WEATHER, UNKNOWN)
    path = f"install/tasks/{task}/delete"
    assert post(door, f"{path}/{WEATHER}")[1]["data"] is True
    [left] = get(door, f"install/tasks/{task}")[1]["data"]["plugins"]
    assert left["plugin_unique_identifier"] == UNKNOWN
    assert post(door, f"{path}/{UNKNOWN}")[1]["data"] is True
    assert get(door, "install/tasks", page=1, page_size=5)[1]["data"] == []
    assert post(door, f"{path}/{UNKNOWN}")[1]["data"] is True


def test_a_task_and_all_tasks_are_deleted(door: World) -> None:
    first, _ = make_task(door, WEATHER), make_task(door, UNKNOWN)
    assert post(door, f"install/tasks/{first}/delete")[1]["data"] is True
    assert len(get(door, "install/tasks", page=1, page_size=5)[1]["data"]) == 1
    assert post(door, "install/tasks/delete_all")[1]["data"] is True
    assert get(door, "install/tasks", page=1, page_size=5)[1]["data"] == []
    assert post(door, f"install/tasks/{first}/delete")[1]["data"] is True


@pytest.mark.parametrize("task", [NO_ID, "nothing"])
def test_D_19_an_unknown_task_is_not_found(door: World, task: str) -> None:
    status, answer = get(door, f"install/tasks/{task}")
    assert status == 200
    assert error_of(answer)[:2] == (-404, "PluginDaemonNotFoundError")


def test_a_bad_identifier_of_a_task_entry_is_200_with_a_negative_code(door: World) -> None:
    status, answer = post(door, f"install/tasks/{NO_ID}/delete/nonsense")
    assert (status, answer["code"]) == (200, -400)


def test_T_S11_another_tenants_task_is_as_if_it_were_not_there(door: World) -> None:
    task = make_task(door, WEATHER, tenant=OTHER_TENANT)
    assert get(door, f"install/tasks/{task}")[1]["code"] == -404
    assert get(door, "install/tasks", page=1, page_size=5)[1]["data"] == []
    post(door, f"install/tasks/{task}/delete")
    post(door, f"install/tasks/{task}/delete/{WEATHER}")
    post(door, "install/tasks/delete_all")
    with door.services.database.read() as conn:
        found = install_tasks.get(conn, OTHER_TENANT, task)
    assert found is not None
    assert len(found.plugins) == 1


# ------------------------------------------------------------------ lists


def test_the_list_shows_what_the_tenant_installed(door: World) -> None:
    installation = door.install()
    door.install(WEATHER.replace("weather", "other"), tenant=OTHER_TENANT)
    status, answer = get(door, "list", page=1, page_size=100, response_type="paged")
    assert status == 200
    assert answer["data"]["total"] == 1
    [entry] = answer["data"]["list"]
    assert entry.pop("created_at").endswith("Z")
    assert entry.pop("updated_at").endswith("Z")
    assert entry == {
        "id": installation,
        "name": "weather",
        "plugin_id": "acme/weather",
        "tenant_id": TENANT,
        "plugin_unique_identifier": WEATHER,
        "endpoints_active": 0,
        "endpoints_setups": 0,
        "installation_id": installation,
        "declaration": WEATHER_DECLARATION,
        "runtime_type": "local",
        "version": "0.1.2",
        "source": "package",
        "checksum": "9f" * 32,
        "meta": {},
    }


def test_an_empty_list_is_a_list(door: World) -> None:
    _, answer = get(door, "list", page=1, page_size=1)
    assert answer["data"] == {"list": [], "total": 0}


def test_the_list_is_paged_newest_first(door: World) -> None:
    names = ("first", "second", "third")
    for name in names:
        door.install(WEATHER.replace("weather", name))
    pages = [get(door, "list", page=page, page_size=2)[1]["data"] for page in (1, 2, 3)]
    shown = [[one["name"] for one in page["list"]] for page in pages]
    assert shown == [["third", "second"], ["first"], []]
    assert {page["total"] for page in pages} == {3}


def test_D_13_one_broken_row_does_not_fail_the_list(door: World) -> None:
    door.install()
    door.install(WEATHER.replace("weather", "gone"))
    with door.services.database.write() as conn:
        from tidegate.storage import declarations

        declarations.delete(conn, WEATHER.replace("weather", "gone"))
    _, answer = get(door, "list", page=1, page_size=10)
    assert [one["name"] for one in answer["data"]["list"]] == ["weather"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "'Page' failed on the 'required' tag"),
        ({"page": 1, "page_size": 257}, "'PageSize' failed on the 'max' tag"),
        ({"page": "x", "page_size": 1}, "$.page"),
    ],
)
def test_a_page_that_does_not_fit_is_http_400(
    door: World, query: dict[str, Any], words: str
) -> None:
    status, answer = get(door, "list", **query)
    assert status == 400
    assert error_of(answer)[:2] == (-400, "PluginDaemonBadRequestError")
    assert words in error_of(answer)[2]


def test_a_tenant_that_is_no_uuid_is_400(door: World) -> None:
    status, body, _ = door.call(
        "GET", "/plugin/nobody/management/list", query={"page": 1, "page_size": 1}
    )
    assert status == 400
    assert opened(json.loads(body))["code"] == -400


# ------------------------------------------------------------------ fetch, uninstall


def test_a_manifest_that_was_never_uploaded_is_not_found(door: World) -> None:
    status, answer = get(door, "fetch/manifest", plugin_unique_identifier=UNKNOWN)
    assert status == 200
    assert error_of(answer) == (-400, "PluginDaemonBadRequestError", "plugin not found")
    assert get(door, "fetch/manifest", plugin_unique_identifier="x")[0] == 400


def test_an_identifier_is_there_when_somebody_installed_it(door: World) -> None:
    def there() -> Any:
        return get(door, "fetch/identifier", plugin_unique_identifier=WEATHER)[1]["data"]

    door.declare(WEATHER, WEATHER_DECLARATION)
    assert there() is False
    door.install(tenant=OTHER_TENANT)
    assert there() is True


@pytest.mark.parametrize("spelling", ["plugin_unique_identifier", "PluginUniqueIdentifier"])
def test_an_identifier_is_understood_in_query_and_body(door: World, spelling: str) -> None:
    door.declare(WEATHER, WEATHER_DECLARATION)
    assert get(door, "fetch/manifest", **{spelling: WEATHER})[0] == 200
    status, answer = door.envelope(
        "GET", "management/fetch/manifest", json_body={"plugin_unique_identifier": WEATHER}
    )
    assert (status, answer["data"]["name"]) == (200, "weather")


def test_uninstalling_is_true_and_the_plugin_is_gone_at_once(door: World) -> None:
    installation = door.install()
    tool = {"provider": "weather", "tool": "now"}
    assert post(door, "uninstall", {"plugin_installation_id": installation})[1]["data"] is True
    assert get(door, "list", page=1, page_size=1)[1]["data"]["total"] == 0
    status, [answer] = door.dispatch("tool/invoke", tool)
    assert (status, error_of(answer)[1]) == (404, "PluginNotFoundError")
    for unknown in (installation, NO_ID):
        assert post(door, "uninstall", {"plugin_installation_id": unknown})[1]["data"] is True
    status, answer = post(door, "uninstall", {"plugin_installation_id": "nothing"})
    assert (status, answer["code"]) == (200, -400), "no UUID: an error inside, as the reference"
    assert post(door, "uninstall", {})[0] == 400


def test_T_S11_another_tenants_installation_stays(door: World) -> None:
    theirs = door.install(tenant=OTHER_TENANT)
    post(door, "uninstall", {"plugin_installation_id": theirs})
    assert door.services.catalogue.installation(OTHER_TENANT, "acme/weather") is not None


# ------------------------------------------------------------------ own routes


def test_health_needs_no_key_and_shows_the_load(door: World) -> None:
    status, body, _ = door.call("GET", "/health/check", key="")
    shown = json.loads(body)
    assert status == 200
    assert shown["status"] == "ok"
    assert shown["pool_status"]["total"] == 10_000
    assert (shown["active_requests"], shown["active_dispatch_requests"]) == (1, 0)


def test_metrics_name_what_happened(door: World) -> None:
    door.install()
    door.call("GET", "/health/check")
    status, body, headers = door.call("GET", "/metrics/", key="")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    text = body.decode()
    assert 'plugin_http_requests_total{endpoint="/health/check",method="GET",status="200"}' in text
    assert "tidegate_host_up 1.0" in text
    assert 'tidegate_host{figure="sessions"} 3.0' in text
    assert 'active_plugins_total{runtime_type="local"} 1.0' in text
    assert 'plugin_runtime_status{plugin_id="acme/weather",runtime_type="local"} 1.0' in text
    assert 'plugin_runtime_status{plugin_id="acme/slow",runtime_type="local"} 0.5' in text
    assert "tidegate_streams_opened_total" in text
    assert door.call("GET", "/metrics", key="")[0] == 301


def test_metrics_can_be_switched_off(tmp_path) -> None:
    with world(tmp_path, {}, PROMETHEUS_ENABLED="false") as door:
        assert door.call("GET", "/metrics/")[0] == 404


def test_the_fingerprint_of_api_and_host_needs_the_key(door: World) -> None:
    assert door.call("GET", "/debug/runtime", key="")[0] == 401
    status, body, _ = door.call("GET", "/debug/runtime")
    data = json.loads(body)["data"]
    assert status == 200
    assert data["api"]["role"] == "api"
    assert data["host"] == {"role": "host"}
