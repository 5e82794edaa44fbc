"""The route of the debugging key."""

from __future__ import annotations

import pytest

from tests.integration.door_world import OTHER_TENANT, TENANT, world


@pytest.fixture
def door(tmp_path):
    with world(tmp_path, {}) as made:
        yield made


def test_a_tenant_gets_its_key_and_keeps_it(door):
    status, envelope = door.envelope("POST", "debugging/key")
    assert (status, envelope["code"]) == (200, 0)
    assert door.envelope("POST", "debugging/key")[1]["data"] == envelope["data"]
    _, other, _ = door.call("POST", f"/plugin/{OTHER_TENANT}/debugging/key")
    assert envelope["data"]["key"].encode() not in other


def test_the_key_is_not_for_strangers(door):
    status, _, _ = door.call("POST", f"/plugin/{TENANT}/debugging/key", key="wrong")
    assert status == 401


def test_switched_off_there_is_no_such_route(tmp_path):
    with world(tmp_path, {}, PLUGIN_REMOTE_INSTALLING_ENABLED="false") as door:
        assert door.call("POST", f"/plugin/{TENANT}/debugging/key")[0] == 404
