"""Every route of a tenant, asked by another with the first one's ids: as for unknown ids.

The route table says which routes there are, so that a new one is asked as well.
"""

from __future__ import annotations

import json
import re
import socket
import uuid

import pytest
from sqlalchemy import select

from tests.integration.door_world import KEY, OTHER_TENANT, TENANT, WEATHER, world
from tidegate.doors.routes import BodyRule, Kind
from tidegate.storage import endpoints, install_tasks
from tidegate.storage.install_tasks import TaskEntry
from tidegate.storage.tables import metadata

STRANGER = "acme/stranger:9.9.9@" + "1e" * 32
#: Not a tenant's own state: they answer the same to everybody.
SHARED = {"/plugin/{tenant_id}/live"}


def answering(call):
    call.send(b'{"type":"text","message":{"text":"secret of A"},"meta":null}')
    call.finish()


@pytest.fixture
def site(tmp_path):
    with world(tmp_path, {"acme/weather": answering}) as site:
        site.ids = {"installation": site.install()}
        with site.services.database.write() as conn:
            task = install_tasks.create(conn, TENANT, [TaskEntry(WEATHER)])
            made = endpoints.create(
                conn, TENANT, WEATHER, user_id="u", name="door of A", settings={}
            )
        site.ids |= {"task": task.id, "endpoint": made.id}
        yield site


def rows(site) -> dict[str, list[tuple]]:
    with site.services.database.read() as conn:
        return {
            table.name: sorted(map(repr, conn.execute(select(table))))
            for table in metadata.sorted_tables
            if table.name not in ("tidegate_generation",)
        }


def body_of(ids: dict[str, str], identifier: str) -> dict[str, object]:
    """Every name under which a route may take an id."""
    plugin_id = identifier.split(":")[0]
    return {
        "plugin_installation_id": ids["installation"],
        "plugin_id": plugin_id,
        "plugin_ids": [plugin_id],
        "plugin_unique_identifier": identifier,
        "plugin_unique_identifiers": [identifier],
        "original_plugin_unique_identifier": identifier,
        "new_plugin_unique_identifier": identifier,
        "endpoint_id": ids["endpoint"],
        "settings": {},
        "name": "x",
        "user_id": "u",
        "source": "package",
        "meta": {},
        "metas": [{}],
        "data": {"provider": "weather", "tool": "now", "tool_parameters": {}, "credentials": {}},
    }


def ask(site, route, ids: dict[str, str], identifier: str) -> tuple[int, str]:
    """(status, answer without the ids that were asked for)."""
    fields = body_of(ids, identifier)
    params = {
        "tenant_id": OTHER_TENANT,
        "id": ids["task"],
        "identifier": identifier,
        **dict.fromkeys(("task_id", "install_task_id"), ids["task"]),
    }
    path = re.sub(r"\{(\w+)(?:\.\.\.)?\}", lambda m: params.get(m[1], identifier), route.pattern)
    flat = {name: value for name, value in fields.items() if isinstance(value, str)}
    query = {**flat, "page": "1", "page_size": "100", "limit": "100"}
    body = None if route.body in (BodyRule.NONE, BodyRule.MULTIPART) else fields
    headers = {"X-Plugin-ID": identifier.split(":")[0]}
    status, answer, _ = site.call(route.method, path, query=query, json_body=body, headers=headers)
    text = answer.decode("utf-8", "replace")
    for one in (*ids.values(), identifier, identifier.split(":")[0], identifier.split("@")[1]):
        text = text.replace(one, "ID")
    return status, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)


@pytest.mark.blocks_hub("hundreds of requests in the process of the test")
def test_T_S11_every_route_answers_as_for_an_unknown_id_and_changes_nothing(site):
    unknown = {name: str(uuid.uuid4()) for name in site.ids}
    before = rows(site)
    asked = 0
    # Those that only show come first: what the others make is the asking tenant's own.
    for route in sorted(site.application.table.routes, key=lambda one: one.method != "GET"):
        if "{tenant_id}" not in route.pattern or route.pattern in SHARED:
            continue
        asked += 1
        theirs = ask(site, route, site.ids, WEATHER)
        nobodys = ask(site, route, unknown, STRANGER)
        where = f"{route.method} {route.pattern}"
        assert "door of A" not in theirs[1], where
        assert "secret of A" not in theirs[1], where
        if not _is_about_packages(route.pattern):
            assert theirs == nobodys, where
    assert asked > 40
    assert _of_tenant(rows(site)) == _of_tenant(before)


def _is_about_packages(pattern: str) -> bool:
    """An uploaded package belongs to no tenant: its declaration can be asked by its checksum."""
    return any(
        part in pattern
        for part in (
            "fetch/",
            "install/identifiers",
            "install/upgrade",
            "decode/",
            "readme",
            "asset",
        )
    )


def _of_tenant(rows: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: [row for row in found if TENANT in row] for name, found in rows.items()}


def test_T_S11_the_owner_is_served(site):
    """The guard's own test: the same request of the owner shows the thing."""
    status, text, _ = site.call(
        "GET", f"/plugin/{TENANT}/management/install/tasks/{site.ids['task']}"
    )
    assert status == 200
    assert json.loads(text)["data"]["id"] == site.ids["task"]


def test_T_S16_a_refused_upgrade_of_the_live_door_ends_its_connection(site):
    path = f"/plugin/{TENANT}/live"
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 777\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    hidden = f"GET /debug/runtime HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\n\r\n"
    with socket.create_connection(site.address, timeout=10) as sock:
        sock.sendall((upgrade + hidden).encode())
        got = b""
        while data := sock.recv(65536):
            got += data
    assert not got.startswith(b"HTTP/1.1 101")
    assert got.count(b"HTTP/1.1 ") == 1
    assert Kind.SOCKET in {route.kind for route in site.application.table.routes}
