"""Every route of a tenant, asked by another with the first one's ids: as for unknown ids.

The route table says which routes there are, so that a new one is asked as well. Each is asked by
the owner, too: where that makes no difference, the comparison would say nothing.
"""

from __future__ import annotations

import json
import re
import socket
import uuid

import pytest
from sqlalchemy import select

from tests.integration.door_world import KEY, OTHER_TENANT, TENANT, WEATHER, world
from tests.integration.live_client import LiveClient
from tests.integration.test_actions import CASES
from tidegate.doors.routes import BodyRule, Kind
from tidegate.storage import endpoints, generation, install_tasks
from tidegate.storage.install_tasks import TaskEntry
from tidegate.storage.tables import metadata
from tidegate.wire.heads import PluginHead

STRANGER = "acme/stranger:9.9.9@" + "1e" * 32
NAME = "secret of A"
KINDS = ("tool", "model", "agent_strategy", "datasource", "trigger")
DECLARATION = {
    "version": "0.1.2",
    "label": {"en_US": NAME},
    "resource": {"permission": {"endpoint": {"enabled": True}}},
    "endpoint": {"settings": [], "endpoints": []},
    "tool": {"identity": {"name": "weather"}, "tools": [{"identity": {"name": "now"}}]},
    "model": {"provider": "weather", "label": {"en_US": NAME}, "models": []},
    "agent_strategy": {"identity": {"name": "weather"}, "strategies": []},
    "datasource": {"identity": {"name": "weather"}, "datasources": []},
    "trigger": {"identity": {"name": "weather"}, "events": []},
}
MANAGEMENT = "/plugin/{tenant_id}/management"
#: Packages belong to nobody (docs/concepts.md, "Tenants"): the same answer for every tenant.
SHARED = {
    f"{MANAGEMENT}/decode/from_identifier",
    f"{MANAGEMENT}/fetch/manifest",
    f"{MANAGEMENT}/fetch/identifier",
    f"{MANAGEMENT}/fetch/readme",
    "/plugin/{tenant_id}/asset/{id}",
    "/plugin/{tenant_id}/extract-asset/",
}
#: They take no id of anything that a tenant has. The two last have tests of their own here.
WITHOUT_IDS = {
    f"{MANAGEMENT}/install/upload/package",
    f"{MANAGEMENT}/install/upload/bundle",
    "/plugin/{tenant_id}/debugging/key",
    "/plugin/{tenant_id}/live",
}
#: No tenant is named there: the key is the right to all of them, a hook is its own right.
WITHOUT_TENANT = (
    *("/openapi.json", "/metrics/", "/health/", "/debug/", "/v2/invoke/", "/e/{hook_id}/"),
    *("/admin/", "/backwards-invocation/"),
)


#: Also what the polled actions take for an answer.
ANSWER = {"result": NAME, "status": "running", "plugin_state": {"job": 1}}


def newer(identifier):
    """The version to which an upgrade leads."""
    return identifier.replace("@", "1@")


def answering(call):
    call.send(json.dumps(ANSWER).encode())
    call.finish()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with world(tmp_path_factory.mktemp("tenants"), {"acme/weather": answering}) as site:
        # Both are known packages, so that only who has installed them makes a difference.
        for other in (STRANGER, newer(STRANGER), newer(WEATHER)):
            site.declare(other, {**DECLARATION, "label": {"en_US": "of nobody"}})
        site.ids = {"installation": site.install(WEATHER, DECLARATION)}
        with site.services.database.write() as conn:
            task = install_tasks.create(conn, TENANT, [TaskEntry(WEATHER, message=NAME)])
            made = endpoints.create(conn, TENANT, WEATHER, user_id="u", name=NAME, settings={})
        site.ids |= {"task": task.id, "endpoint": made.id}
        site.first = stored(site)
        for route in of_tenants(site):  # what the first of them opens is not a test's own
            ask(site, route, unknown(site), STRANGER, OTHER_TENANT)
        yield site


@pytest.fixture
def site(whole):
    restore(whole)
    whole.host.calls.clear()
    return whole


def stored(site):
    """Every row of every table, in an order in which they can be written again."""
    with site.services.database.read() as conn:
        return [
            (table, [dict(row) for row in conn.execute(select(table)).mappings()])
            for table in metadata.sorted_tables
        ]


def restore(site):
    """The rows as they were at first, and nobody who remembers others."""
    with site.services.database.write() as conn:
        now = generation.current(conn)
        for table, _ in reversed(site.first):
            conn.execute(table.delete())
        for table, rows in site.first:
            if rows:
                conn.execute(table.insert(), rows)
        conn.execute(generation_table.update().values(value=now + 1))
    site.services.catalogue.invalidate(now + 1)


generation_table = metadata.tables["tidegate_generation"]


def rows_of_owner(site):
    return [
        sorted(repr(sorted(row.items())) for row in rows if TENANT in map(str, row.values()))
        for _, rows in stored(site)
    ]


def ask(site, route, ids, identifier, tenant):
    """(status, answer), where what was named in the request is called ID."""
    params = {"id": ids["task"], "identifier": identifier, "category": "tool"}
    path = route.pattern.replace("{tenant_id}", tenant)
    path = re.sub(r"\{(\w+)(?:\.\.\.)?\}", lambda m: params[m[1]], path)
    fields = body_of(route, ids, identifier)
    query = {name: value for name, value in fields.items() if isinstance(value, str)}
    status, answer, _ = site.call(
        route.method,
        path,
        query={**query, "page": "1", "page_size": "100"},
        json_body=None if route.body is BodyRule.NONE else fields,
        headers={"X-Plugin-ID": identifier.split(":")[0]},
    )
    text = answer.decode("utf-8", "replace")
    plugin, _, checksum = identifier.replace(":", "@").split("@")
    for one in (*ids.values(), newer(identifier), identifier, plugin, checksum):
        text = text.replace(one, "ID")
    return status, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)


def body_of(route, ids, identifier):
    """Every name under which a route may take an id."""
    plugin_id = identifier.split(":")[0]
    case = CASES.get(route.pattern.partition("/dispatch/")[2])
    return {
        "plugin_installation_id": ids["installation"],
        "plugin_id": plugin_id,
        "plugin_ids": [plugin_id],
        "plugin_unique_identifier": identifier,
        "plugin_unique_identifiers": [identifier],
        "original_plugin_unique_identifier": identifier,
        "new_plugin_unique_identifier": newer(identifier),
        "endpoint_id": ids["endpoint"],
        "settings": {},
        "name": "x",
        "user_id": "u",
        "source": "package",
        "category": "tool",
        "provider": "weather",
        "provider_ids": [{"plugin_id": plugin_id, "provider_name": "weather"}],
        "meta": {},
        "metas": [{}],
        # Also what a body may say of its tenant: only the path's counts.
        "tenant_id": TENANT,
        "data": case[1] if case else {},
    }


def of_tenants(site):
    """Those that answer about what one tenant has; those that show come first."""
    routes = (one for one in site.application.table.routes if "{tenant_id}" in one.pattern)
    kept = [one for one in routes if one.pattern not in SHARED | WITHOUT_IDS]
    return sorted(kept, key=lambda one: one.method != "GET")


def unknown(site):
    return {name: str(uuid.uuid4()) for name in site.ids}


@pytest.mark.blocks_hub("hundreds of requests in the process of the test")
def test_T_S11_every_route_answers_as_for_an_unknown_id_and_changes_nothing(site):
    before, nobody = rows_of_owner(site), unknown(site)
    for route in of_tenants(site):
        theirs = ask(site, route, site.ids, WEATHER, OTHER_TENANT)
        where = f"{route.method} {route.pattern}"
        assert NAME not in theirs[1], where
        assert theirs == ask(site, route, nobody, STRANGER, OTHER_TENANT), where
        assert rows_of_owner(site) == before, where
    assert not [one.head for one in site.host.calls if isinstance(one.head, PluginHead)]


@pytest.mark.blocks_hub("hundreds of requests in the process of the test")
def test_T_S11_for_the_owner_each_of_these_routes_makes_a_difference(site):
    """The guard's own test: without it, a route that refuses everybody would pass for safe."""
    nobody = unknown(site)
    for route in of_tenants(site):
        restore(site)
        before = rows_of_owner(site)
        nobodys = ask(site, route, nobody, STRANGER, OTHER_TENANT)
        own = ask(site, route, site.ids, WEATHER, TENANT)
        changed = rows_of_owner(site) != before
        assert own != nobodys or changed, f"{route.method} {route.pattern}: {own}"
        assert own[0] == 200, f"{route.method} {route.pattern}: {own}"


@pytest.mark.blocks_hub("many requests in the process of the test")
def test_T_S11_what_is_shared_is_the_same_for_every_tenant(site):
    for route in site.application.table.routes:
        if route.pattern in SHARED:
            asked = [
                ask(site, route, site.ids, WEATHER, tenant) for tenant in (TENANT, OTHER_TENANT)
            ]
            assert asked[0] == asked[1], route.pattern


def test_T_S11_every_route_is_looked_at(site):
    patterns = {route.pattern for route in site.application.table.routes}
    assert patterns >= SHARED | WITHOUT_IDS
    for pattern in patterns:
        assert "{tenant_id}" in pattern or pattern.startswith(WITHOUT_TENANT), pattern


def test_T_S11_each_tenant_has_a_debugging_key_of_its_own(site):
    def key(tenant):
        return site.call("POST", f"/plugin/{tenant}/debugging/key", json_body={})[1]

    assert key(TENANT) == key(TENANT) != key(OTHER_TENANT)


def test_T_S11_a_live_socket_is_its_tenants(site):
    call = {"id": 1, "plugin": "acme/weather", "action": "tool/invoke"}
    data = {"provider": "weather", "tool": "now", "tool_parameters": {}, "credentials": {}}
    answers = {}
    for tenant in (TENANT, OTHER_TENANT):
        client = LiveClient(site.address, f"/plugin/{tenant}/live", [(b"X-Api-Key", KEY.encode())])
        client.send(**call, tenant_id=TENANT, data=data)
        answers[tenant] = json.dumps(client.next())
        client.sock.close()
    assert NAME in answers[TENANT]
    assert NAME not in answers[OTHER_TENANT]
    assert "PluginNotFoundError" in answers[OTHER_TENANT]


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
