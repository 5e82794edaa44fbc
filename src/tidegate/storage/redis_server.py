"""A client of the Redis that the settings name: one server, behind Sentinel, or a cluster.

    client = redis_client(settings)           # None when there is no Redis
    with redis_trouble():
        client.set(redis_key(settings, "key2id", key), tenant, ex=7200)

Redis holds what may be lost: caches, locks, short-lived keys. Whoever can answer from the database
catches RedisUnavailable and does so (D-62).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from tidegate.errors import RedisUnavailable
from tidegate.settings import Settings
from tidegate.storage import redis_options

_CONNECTIONS = 50
_TRIES = 3
_CHECK_SECONDS = 30
"""Idle time after which a connection is asked whether it still lives before it is used."""


def redis_client(settings: Settings) -> Redis | RedisCluster | None:
    """A client with a pool of its own, safe between greenlets; None when there is no Redis.

    One server and Sentinel are connected at first use; a cluster is asked for its nodes at once,
    and RedisUnavailable is raised when it does not answer. SettingInvalid for settings that do
    not fit together. Text comes back as ``bytes``.
    """
    if not redis_options.is_used(settings):
        return None
    if settings.tidegate_redis_cluster:
        return _cluster(settings)
    if settings.redis_use_sentinel:
        return _behind_sentinel(settings)
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_db,
        retry=_retry(),
        ssl=settings.redis_use_ssl,
        **_connection(settings),
    )


def redis_key(settings: Settings, *parts: str) -> str:
    """A key below REDIS_KEY_PREFIX. In a cluster keys that belong together share a ``{tag}``."""
    return ":".join((settings.redis_key_prefix, *parts))


@contextmanager
def redis_trouble() -> Iterator[None]:
    """Errors of Redis inside the block come out as RedisUnavailable."""
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        raise RedisUnavailable(f"Redis: {error or type(error).__name__}") from error


def _connection(settings: Settings) -> dict[str, Any]:
    return {
        **redis_options.login(settings),
        **(redis_options.tls(settings) if settings.redis_use_ssl else {}),
        "socket_connect_timeout": redis_options.CONNECT_SECONDS,
        "socket_timeout": redis_options.ANSWER_SECONDS,
        "socket_keepalive": True,
        # A firewall forgets idle connections without telling either side; asking after half a
        # minute finds out before a request does.
        "health_check_interval": _CHECK_SECONDS,
        "max_connections": _CONNECTIONS,
    }


def _retry() -> Retry:
    # Short pauses, few tries: whoever asks has the database to fall back on.
    return Retry(ExponentialBackoff(cap=0.5, base=0.05), _TRIES)


def _behind_sentinel(settings: Settings) -> Redis:
    """The master is looked for anew with each connection, so a fail-over is followed."""
    watch = Sentinel(
        redis_options.sentinels(settings), sentinel_kwargs=redis_options.sentinel_login(settings)
    )
    master: Redis = watch.master_for(
        settings.redis_sentinel_service_name,
        db=settings.redis_db,
        retry=_retry(),
        ssl=settings.redis_use_ssl,
        **_connection(settings),
    )
    return master


def _cluster(settings: Settings) -> RedisCluster:
    with redis_trouble():
        return RedisCluster(
            host=settings.redis_host,
            port=settings.redis_port,
            retry=_retry(),
            ssl=settings.redis_use_ssl,
            **_connection(settings),
        )
