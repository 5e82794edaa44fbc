"""The plugin storage on both databases: answers as spec'd, quota first, keys that stay inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tests.unit.backcalls.conftest import ALL, PLUGIN, TENANT, RecordedAnswer, back_call, session
from tests.unit.storage.conftest import database, databases, settings  # noqa: F401 - fixtures
from tidegate.backcalls import Caller, Desk, Unanswered
from tidegate.backcalls.plugin_storage import PluginStorage, clean_key
from tidegate.errors import BlobUnavailable, StorageRefused
from tidegate.settings import Settings
from tidegate.storage import Database, plugin_data
from tidegate.storage.blobs import BlobStore, open_blobs

ROOT = f"persistence/{TENANT}/acme/asker"
OVER = "allocated size is greater than max storage size"
LIMIT = 1000


class Store:
    """The storage of one plugin, asked as a plugin asks."""

    def __init__(self, given: Settings, rows: Database, blobs: BlobStore) -> None:
        self.database, self.blobs = rows, blobs
        storage = PluginStorage(given, rows, blobs)
        self.desk = Desk(given, storage, Unanswered("self"))
        self.caller = Caller(PLUGIN, ALL)

    def start(self, opt: str, key: str, value: bytes | str = b"", **of: Any) -> RecordedAnswer:
        text = value if isinstance(value, str) else value.hex()
        answer = RecordedAnswer()
        found = back_call(
            self.caller, "storage", {"opt": opt, "key": key, "value": text}, of=session(**of)
        )
        self.desk.invoke(found, answer)
        return answer

    def ask(self, opt: str, key: str, value: bytes | str = b"", **of: Any) -> Any:
        answer = self.start(opt, key, value, **of).wait()
        return answer.error or answer.pieces[0]

    @property
    def used(self) -> int:
        with self.database.read() as conn:
            return plugin_data.used(conn, TENANT, "acme/asker")


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:  # noqa: F811
    return open_blobs(settings)


@pytest.fixture
def store(settings: Settings, database: Database, blobs: BlobStore) -> Iterator[Store]:  # noqa: F811
    made = Store(settings, database, blobs)
    yield made
    made.desk.close()


def test_what_is_set_is_got_and_gone_when_deleted(store):
    assert store.ask("exist", "k") == {"data": False, "exist_num": 0}
    assert store.ask("set", "k", b"\x00value") == {"data": "ok"}
    assert store.ask("exist", "k") == {"data": True, "exist_num": 1}
    assert store.ask("get", "k") == {"data": b"\x00value".hex()}
    assert store.ask("del", "k") == {"data": "ok", "deleted_num": 1}
    assert store.ask("get", "k") == (
        "load data failed, please check if the key is correct or you have not set it"
    )


def test_values_lie_raw_below_tenant_and_plugin(store):
    store.ask("set", "folder/k", b"v")
    assert store.blobs.load(f"{ROOT}/folder/k") == b"v"


def test_an_empty_value_is_a_value(store):
    assert store.ask("set", "k", b"") == {"data": "ok"}
    assert store.ask("get", "k") == {"data": ""}


def test_versions_share_and_tenants_and_plugins_do_not(store):
    store.ask("set", "k", b"v")
    other = "0198c5d2-0000-7000-8000-000000000002"
    assert "load data failed" in store.ask("get", "k", tenant=other)
    store.caller = Caller(PLUGIN.replace("0.0.1", "0.0.2"), ALL)
    assert store.ask("get", "k") == {"data": b"v".hex()}
    store.caller = Caller(PLUGIN.replace("asker", "other"), ALL)
    assert "load data failed" in store.ask("get", "k")


def test_a_tenant_has_one_storage_however_a_caller_spells_it(store):
    store.ask("set", "k", b"v", tenant=TENANT.upper())
    store.ask("set", "k", b"vv", tenant=TENANT.replace("-", ""))
    assert store.ask("get", "k") == {"data": b"vv".hex()}
    assert store.used == 2


@pytest.mark.parametrize("tenant", ["{" + TENANT + "}", f"urn:uuid:{TENANT}", "../" + TENANT, ""])
def test_what_is_no_tenant_has_no_storage(store, tenant):
    assert "tenant is not a UUID" in store.ask("set", "k", b"v", tenant=tenant)


def test_D_43_deleting_what_is_not_there_is_no_error_and_counts_nothing(store):
    assert store.ask("del", "k") == {"data": "ok", "deleted_num": 0}


@pytest.mark.parametrize(
    "key", [".", "..", "../x", "a/../../b", "foo..bar", "a\\b", "/", "./", "a/..", "//", "..\\x"]
)
@pytest.mark.parametrize("opt", ["get", "set", "del", "exist"])
def test_D_43_a_key_never_leaves_the_plugins_area(store, key, opt):
    store.blobs.save(f"{ROOT}/kept", b"v")
    assert store.ask(opt, key, b"v") == "invalid key: path traversal attempt detected"
    assert store.blobs.load(f"{ROOT}/kept") == b"v"


def test_keys_are_cleaned_as_paths(store):
    store.ask("set", "./a//b/../c", b"v")
    assert store.ask("get", "/a/c") == {"data": b"v".hex()}
    assert clean_key("a/./b/") == "a/b"
    with pytest.raises(StorageRefused):
        clean_key("")


def test_a_key_may_be_256_bytes_long_and_no_longer(store):
    parts = "a" * 128 + "/" + "b" * 127
    assert store.ask("set", parts, b"v") == {"data": "ok"}
    assert "less than 256" in store.ask("set", parts + "c", b"v")
    assert "less than 256" in store.ask("set", "é" * 129, b"v")


@pytest.mark.parametrize("key", ["a\nb", "a\x00b", ".tidegate-x", "x" * 256])
def test_a_key_that_the_store_does_not_take_is_an_error(store, key):
    assert store.ask("set", key, b"v").startswith("save data failed: ")


@pytest.mark.parametrize("tenant", ["../../../x", "t", ""])
def test_D_67_a_tenant_that_is_no_uuid_gets_nothing(store, tenant):
    assert "tenant is not a UUID" in store.ask("set", "k", b"v", tenant=tenant)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"opt": "get"}, "fields are required: key"),
        ({"key": "k"}, "fields are required: opt"),
        ({"opt": "drop", "key": "k"}, "no operation"),
        ({"opt": "set", "key": "k", "value": "xy"}, "decode data failed"),
        ({"opt": "set", "key": "k", "value": "abc"}, "decode data failed"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(store, request_, error):
    answer = RecordedAnswer()
    store.desk.invoke(back_call(store.caller, "storage", request_), answer)
    assert error in answer.wait().error


# --------------------------------------------------------------------------- room


def test_D_42_what_passes_the_quota_is_refused_before_it_is_written(store):
    assert store.ask("set", "k", bytes(LIMIT)) == {"data": "ok"}
    assert store.ask("set", "k2", b"1") == OVER
    assert store.ask("exist", "k2")["data"] is False
    assert store.used == LIMIT
    assert store.ask("get", "k") == {"data": bytes(LIMIT).hex()}  # what is there stays readable


def test_a_first_value_over_the_quota_is_refused(store):
    assert store.ask("set", "k", bytes(LIMIT + 1)) == OVER
    assert store.used == 0


def test_the_count_follows_growing_shrinking_and_deleting(store):
    for size in (10, 500, 20):
        store.ask("set", "k", bytes(size))
        assert store.used == size
    store.ask("set", "k2", bytes(5))
    assert store.used == 25
    store.ask("del", "k")
    assert store.used == 5


def test_a_full_plugin_may_still_shrink_and_replace(store):
    store.ask("set", "k", bytes(LIMIT))
    assert store.ask("set", "k", bytes(LIMIT)) == {"data": "ok"}
    assert store.ask("set", "k", bytes(10)) == {"data": "ok"}
    assert store.used == 10


def test_the_global_limit_holds_where_the_manifest_has_none(settings, database, blobs):  # noqa: F811
    small = Settings.load(
        {"TIDEGATE_HOME": settings.tidegate_home, "PERSISTENCE_STORAGE_MAX_SIZE": "10"}
    )
    store = Store(small, database, blobs)
    for permission in (
        {"enabled": True, "size": -1},
        {"enabled": True},
        {"enabled": True, "size": 99},
    ):
        store.caller = Caller(PLUGIN, {"storage": permission})
        assert store.ask("set", "k", bytes(11)) == OVER
        assert store.ask("set", "k", bytes(10)) == {"data": "ok"}
    store.desk.close()


def test_D_42_writers_at_once_never_pass_the_quota_together(store):
    answers = [store.start("set", f"k{number}", bytes(100)) for number in range(30)]
    outcomes = [answer.wait().error for answer in answers]
    assert outcomes.count(None) == LIMIT // 100
    assert set(outcomes) == {None, OVER}
    assert store.used == LIMIT
    assert sum(blob.size for blob in store.blobs.list(ROOT)) == LIMIT


def test_D_42_two_hosts_at_once_never_pass_the_quota_together(store, settings, blobs):  # noqa: F811
    """Each with an engine and locks of its own: only the row holds them together."""
    other_database = Database(settings)
    other = Store(settings, other_database, blobs)
    answers = [
        one.start("set", f"k{number}", bytes(100)) for number in range(15) for one in (store, other)
    ]
    for answer in answers:
        answer.wait()
    assert store.used <= LIMIT
    assert sum(blob.size for blob in store.blobs.list(ROOT)) <= LIMIT
    with store.database.read() as conn:
        rows = conn.exec_driver_sql("SELECT count(*) FROM tenant_storages").scalar()
    assert rows == 1
    other.desk.close()
    other_database.dispose()


def test_room_that_a_killed_host_took_is_found_again(store):
    store.ask("set", "k", bytes(100))
    with store.database.write() as conn:
        assert plugin_data.take(conn, TENANT, "acme/asker", LIMIT - 100, LIMIT)
    assert store.used == LIMIT
    assert store.ask("set", "k2", bytes(200)) == {"data": "ok"}
    assert store.used == 300


class Broken:
    """A blob store that does not answer."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.down = True

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise BlobUnavailable("no space left", reason="full")
        return getattr(self._blobs, name)


def test_room_is_given_back_when_the_bytes_cannot_be_written(settings, database, blobs):  # noqa: F811
    class Full(Broken):
        def load(self, key: str) -> bytes:
            return self._blobs.load(key)

    store = Store(settings, database, Full(blobs))
    assert store.ask("set", "k", bytes(10)) == "save data failed: no space left"
    assert store.used == 0
    store.desk.close()


def test_D_59_an_outage_is_not_a_missing_key(settings, database, blobs):  # noqa: F811
    store = Store(settings, database, Broken(blobs))
    assert store.ask("get", "k") == "load data failed: no space left"
    assert store.ask("exist", "k") == "exist data failed: no space left"
    assert store.ask("del", "k") == "delete data failed: no space left"
    store.desk.close()


def test_one_slow_plugin_does_not_hold_up_another(store, settings, database, blobs):  # noqa: F811
    class Slow(Broken):
        def __getattr__(self, name: str) -> Any:
            def slowly(*arguments: Any) -> Any:
                if "asker" in arguments[0]:
                    gevent.sleep(0.3)
                return getattr(self._blobs, name)(*arguments)

            return slowly

    slow = Store(settings, database, Slow(blobs))
    waits = slow.start("set", "k", b"v")
    slow.caller = Caller(PLUGIN.replace("asker", "other"), ALL)
    assert slow.ask("set", "k", b"v") == {"data": "ok"}
    assert not waits.ends
    waits.wait()
    slow.desk.close()


def test_answers_are_json_of_the_published_shape(store):
    store.ask("set", "k", b"v")
    answer = store.start("get", "k").wait()
    assert json.loads(answer.raw[0]) == {"data": "76"}
    assert answer.streamed == [False]
