"""Redis as the settings name it: one server, TLS, behind Sentinel, a cluster, and not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from tests import servers
from tests.patience import patience
from tests.runtime.tls import tls_relay
from tests.servers import RedisServer
from tests.stack import free_port
from tidegate.errors import RedisUnavailable, SettingInvalid
from tidegate.settings import Settings
from tidegate.storage import redis_client, redis_key, redis_trouble


def _settings(**environ: str) -> Settings:
    return Settings.load({"TIDEGATE_HOME": "/nowhere", **environ})


@pytest.fixture(scope="module")
def sentinel() -> Iterator[dict[str, str]]:
    with servers.sentinel() as environ:
        yield environ


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with servers.redis_cluster() as environ:
        yield environ


def _round_trip(settings: Settings, name: str = "k") -> Any:
    client = redis_client(settings)
    assert client is not None
    try:
        with redis_trouble():
            client.set(redis_key(settings, name), "v", ex=60)
            return client.get(redis_key(settings, name))
    finally:
        client.close()


def test_there_is_none_unless_the_settings_name_one() -> None:
    assert redis_client(_settings()) is None


def test_keys_stand_below_the_prefix(redis: RedisServer) -> None:
    settings = _settings(**redis.environ, REDIS_KEY_PREFIX="mine", REDIS_DB="3")
    assert redis_key(settings, "a", "b") == "mine:a:b"
    assert _round_trip(settings, "own") == b"v"
    with Redis(redis.host, redis.port, 3) as client:
        assert client.get("mine:own") == b"v"


def test_D_62_one_that_is_not_there_is_named_and_soon() -> None:
    started = time.monotonic()
    with pytest.raises(RedisUnavailable, match="Redis"):
        _round_trip(_settings(REDIS_HOST="127.0.0.1", REDIS_PORT=str(free_port())))
    assert time.monotonic() - started < 5


def test_waiting_for_it_holds_nobody_else_up(redis: RedisServer) -> None:
    client = redis_client(_settings(**redis.environ))
    assert client is not None
    waiting = gevent.spawn(client.blpop, ["tidegate-test-list"], 2)
    gevent.sleep(0)
    client.rpush("tidegate-test-list", "x")
    assert waiting.get(timeout=patience(1)) == (b"tidegate-test-list", b"x")
    client.close()


# --------------------------------------------------------------------------- TLS


def test_tls_is_verified_by_the_given_authority(redis: RedisServer, tmp_path: Path) -> None:
    with tls_relay(tmp_path, (redis.host, redis.port)) as (port, authority):
        environ = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_USE_SSL": "true"}
        known = _settings(
            **environ, REDIS_SSL_CERT_REQS="CERT_REQUIRED", REDIS_SSL_CA_CERTS=str(authority)
        )
        assert _round_trip(known) == b"v"
        for reqs in ("", "CERT_OPTIONAL"):
            with pytest.raises(RedisUnavailable, match=r"(?i)certificate"):
                _round_trip(_settings(**environ, REDIS_SSL_CERT_REQS=reqs))
        assert _round_trip(_settings(**environ, REDIS_SSL_CERT_REQS="CERT_NONE")) == b"v"


def test_a_certificate_of_another_name_is_refused(redis: RedisServer, tmp_path: Path) -> None:
    with tls_relay(tmp_path, (redis.host, redis.port)) as (port, authority):
        environ = {"REDIS_HOST": "localhost", "REDIS_PORT": str(port), "REDIS_USE_SSL": "true"}
        with pytest.raises(RedisUnavailable, match=r"(?i)hostname"):
            _round_trip(_settings(**environ, REDIS_SSL_CA_CERTS=str(authority)))


# --------------------------------------------------------------------------- Sentinel


def test_T29_a_fail_over_is_followed_within_seconds(sentinel: dict[str, str]) -> None:
    settings = _settings(**sentinel)
    client = redis_client(settings)
    assert client is not None
    with redis_trouble():
        client.set("before", "1")
    with Redis("127.0.0.1", int(settings.redis_sentinels[0].rpartition(":")[2])) as watch:
        master = watch.sentinel_get_master_addr_by_name("main")
        _fail_over(watch)
        _until(lambda: watch.sentinel_get_master_addr_by_name("main") != master, 20)

    def write() -> bool:
        with suppress(RedisError):
            return bool(client.set("after", "2"))
        return False

    _until(write, 5)
    assert client.get("after") == b"2"
    client.close()
    for one in client.connection_pool.sentinel_manager.sentinels:  # type: ignore[union-attr]
        one.close()


def _until(true: Callable[[], bool], seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends_at, f"not within {seconds} s"
        gevent.sleep(0.02)


def _fail_over(watch: Redis) -> None:
    """The sentinel refuses while it has not looked at the replica yet."""
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        with suppress(ResponseError):
            watch.execute_command("SENTINEL", "FAILOVER", "main")
            return
        gevent.sleep(0.05)
    pytest.fail("the sentinel knows no good replica")


def test_sentinel_settings_that_do_not_fit_are_refused() -> None:
    environ = {"REDIS_USE_SENTINEL": "true", "REDIS_SENTINELS": "a:1"}
    with pytest.raises(SettingInvalid, match="SERVICE_NAME"):
        redis_client(_settings(**environ))
    with pytest.raises(SettingInvalid, match="host:port"):
        redis_client(_settings(**{**environ, "REDIS_SENTINELS": "nothing"}))


# --------------------------------------------------------------------------- cluster


def test_T29_a_cluster_serves_keys_of_every_node(cluster: dict[str, str]) -> None:
    settings = _settings(**cluster)
    client = redis_client(settings)
    assert client is not None
    keys = [redis_key(settings, str(number)) for number in range(60)]
    with redis_trouble():
        for key in keys:
            client.set(key, key, ex=60)
        assert [client.get(key) for key in keys] == [key.encode() for key in keys]
        nodes = {client.get_node_from_key(key).name for key in keys}  # type: ignore[union-attr]
    assert len(nodes) == 3
    client.close()


def test_keys_with_one_tag_change_together(cluster: dict[str, str]) -> None:
    settings = _settings(**cluster)
    client = redis_client(settings)
    assert client is not None
    one, two = (redis_key(settings, "{pair}", name) for name in "ab")
    with redis_trouble(), client.pipeline(transaction=True) as pipeline:
        pipeline.watch(one, two)
        pipeline.multi()
        pipeline.set(one, "1")
        pipeline.set(two, "2")
        pipeline.execute()
    assert client.mget(one, two) == [b"1", b"2"]
    client.close()


def test_a_lock_in_a_cluster_is_held_by_one(cluster: dict[str, str]) -> None:
    client = redis_client(_settings(**cluster))
    assert client is not None
    with client.lock("tidegate:lock", timeout=10):
        assert not client.lock("tidegate:lock", timeout=10).acquire(blocking=False)
    assert client.lock("tidegate:lock", timeout=10).acquire(blocking=False)
    client.close()


def test_a_cluster_that_is_not_there_is_unavailable() -> None:
    environ = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(free_port())}
    with pytest.raises(RedisUnavailable):
        redis_client(_settings(**environ, TIDEGATE_REDIS_CLUSTER="true"))


@pytest.mark.parametrize("other", [{"REDIS_USE_SENTINEL": "true"}, {"REDIS_DB": "1"}])
def test_a_cluster_is_neither_behind_sentinel_nor_divided(other: dict[str, str]) -> None:
    with pytest.raises(SettingInvalid, match="TIDEGATE_REDIS_CLUSTER"):
        _settings(REDIS_HOST="a", TIDEGATE_REDIS_CLUSTER="true", **other)
