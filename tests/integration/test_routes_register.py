"""Defects of the reference that show at the doors, and what is done instead (D-nn)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.databases import Backend
from tests.integration.door_world import TENANT, World, world
from tidegate.settings import Secret, Settings
from tidegate.storage import install_tasks, installations
from tidegate.storage.install_tasks import TaskEntry

OLD = "acme/weather:0.1.0@" + "9f" * 32
NEW = "acme/weather:0.2.0@" + "9e" * 32
USED = "acme/weather:0.3.0@" + "9d" * 32
DECLARATION = {"label": {"en_US": "Weather"}, "tool": {"identity": {"name": "p"}, "tools": []}}
OTHER = "1b7f485a-4c47-4aa1-b113-4a18462d122d"


@pytest.fixture
def door(tmp_path, backend: Backend) -> Any:
    with backend.fresh() as servers, world(tmp_path, {}, **servers) as made:
        yield made


def page(door: World, path: str = "list", size: int = 256) -> bytes:
    query = {"page": 1, "page_size": size}
    status, body, _ = door.call("GET", f"/plugin/{TENANT}/management/{path}", query=query)
    assert status == 200
    return body


def test_D_12_an_upgrade_without_meta_leaves_an_object(door: World) -> None:
    door.install(OLD, DECLARATION)
    door.install(USED, DECLARATION, tenant=OTHER)
    status, envelope = door.envelope(
        "POST",
        "management/install/upgrade",
        json_body={
            "original_plugin_unique_identifier": OLD,
            "new_plugin_unique_identifier": USED,
            "source": "package",
        },
    )
    assert (status, envelope["data"]) == (200, {"all_installed": True, "task_id": ""})
    [row] = json.loads(page(door))["data"]["list"]
    assert (row["plugin_unique_identifier"], row["meta"]) == (USED, {})


def test_D_14_pages_of_capabilities_do_not_overlap(door: World) -> None:
    for number in range(7):
        door.install(f"acme/w{number}:0.1.0@" + "9f" * 32, DECLARATION)
    seen = []
    for number in (1, 2, 3):
        query = {"page": number, "page_size": 3}
        _, envelope = door.envelope("GET", "management/tools", query=query)
        seen += [one["plugin_id"] for one in envelope["data"]]
    assert seen == [f"acme/w{number}" for number in reversed(range(7))]


@pytest.mark.parametrize("key", ["", "secre", "secrets", "SECRET", "s\u00e9cret"])
def test_D_35_only_the_whole_key_opens(door: World, key: str) -> None:
    path = f"/plugin/{TENANT}/management/list"
    status, _, _ = door.call("GET", path, key=key.encode().decode("latin-1"))
    assert status in (401, 429)


def test_D_38_a_secret_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings.load({"SERVER_KEY": "the-key", "DB_PASSWORD": "the-password"})
    shown = f"{settings} {settings.server_key!r} {settings.server_key:>5} {[settings]}"
    assert "the-key" not in shown
    assert "the-password" not in shown
    assert Secret("x").reveal() == "x"


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_D_46_a_blank_number_counts_as_unset(blank: str) -> None:
    assert Settings.load({"SERVER_PORT": blank}).server_port == 5002
    assert Settings.load({"PROMETHEUS_ENABLED": blank}).prometheus_enabled is True


def test_an_older_answer_is_never_given_after_a_change(door: World) -> None:
    row_id = door.install(OLD, DECLARATION)
    for path in ("list", "tools", "installation/ids?category=tool"):
        assert b"acme/weather" in door.call(
            "GET", f"/plugin/{TENANT}/management/{path}",
            query={"page": 1, "page_size": 9} if "?" not in path else None,
        )[1]  # fmt: skip
    door.envelope("POST", "management/uninstall", json_body={"plugin_installation_id": row_id})
    assert json.loads(page(door))["data"] == {"list": [], "total": 0}
    assert json.loads(page(door, "tools"))["data"] == []


def test_a_change_of_another_process_shows_within_a_second(door: World) -> None:
    page(door)
    with door.services.database.write() as conn:  # as the worker does, without a notice
        installations.install(conn, TENANT, OLD, json.dumps(DECLARATION), source="x", meta={})
    ends_at = time.monotonic() + 1.5
    while b"acme/weather" not in page(door):
        assert time.monotonic() < ends_at


def test_P13_a_list_costs_a_fifth_of_building_it(door: World) -> None:
    big = {**DECLARATION, "description": {"en_US": "x" * 20_000}}
    for number in range(20):
        door.install(f"acme/w{number}:0.1.0@" + "9f" * 32, big)
    handler = door.application.table.find("GET", f"/plugin/{TENANT}/management/list")
    assert handler is not None
    catalogue = door.services.catalogue

    def cost(*, ready: bool) -> float:
        from tests.unit.doors.requests import make_request

        request = make_request(query={"page": 1, "page_size": 100}, params={"tenant_id": TENANT})
        began = time.process_time()
        for _ in range(20):
            if not ready:
                catalogue._forget()
            handler[0].handler(request)
        return time.process_time() - began

    cost(ready=True)
    assert cost(ready=False) > 5 * cost(ready=True)


def test_D_10_another_version_counts_as_installed_and_missing_tells_it(door: World) -> None:
    door.install(OLD, DECLARATION)
    door.declare(NEW, DECLARATION)
    body = {"plugin_unique_identifiers": [NEW], "source": "package", "metas": [{}]}
    _, envelope = door.envelope("POST", "management/install/identifiers", json_body=body)
    assert envelope["data"] == {"all_installed": True, "task_id": ""}
    body = {"plugin_unique_identifiers": [NEW]}
    _, envelope = door.envelope("POST", "management/installation/missing", json_body=body)
    assert envelope["data"] == [{"plugin_unique_identifier": NEW, "current_identifier": OLD}]


def test_D_15_a_task_stays_while_a_plugin_of_it_is_not_done(door: World) -> None:
    with door.services.database.write() as conn:
        task = install_tasks.create(
            conn,
            TENANT,
            [TaskEntry(identifier=OLD, status=install_tasks.SUCCESS), TaskEntry(identifier=NEW)],
        )
    _, envelope = door.envelope("GET", f"management/install/tasks/{task.id}")
    assert envelope["data"]["status"] == "running"


def test_D_19_what_is_no_id_is_refused_and_an_unknown_one_is_gone(door: World) -> None:
    def uninstalled(text: str) -> dict[str, Any]:
        body = {"plugin_installation_id": text}
        status, envelope = door.envelope("POST", "management/uninstall", json_body=body)
        assert status == 200
        return envelope

    assert uninstalled("nope")["code"] == -400
    assert uninstalled("0198c5d2-0000-7000-8000-000000000000")["data"] is True
