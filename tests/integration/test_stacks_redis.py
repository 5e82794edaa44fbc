"""Jobs travel over Redis however it is reached: by TLS, behind Sentinel."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from tests import servers
from tests.runtime.tls import tls_relay
from tests.servers import RedisServer
from tidegate.jobs import UPKEEP, celery_settings
from tidegate.settings import Settings

pytestmark = pytest.mark.blocks_hub("starts servers, imports Celery")


def _round_trip(home: Path, environ: dict[str, str]) -> object:
    settings = Settings.load({"TIDEGATE_HOME": str(home), **environ})
    app = Celery("travels", set_as_current=False)
    app.conf.update(celery_settings(settings))
    try:
        with app.connection_for_write() as connection:
            queue = connection.SimpleQueue(UPKEEP, serializer="json")
            queue.put({"job": "one"})
            message = queue.get(timeout=5)
            message.ack()
            queue.close()
            return message.payload
    finally:
        app.close()


def test_T29_over_tls(redis: RedisServer, tmp_path: Path) -> None:
    with tls_relay(tmp_path, (redis.host, redis.port)) as (port, authority):
        environ = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(port),
            "REDIS_USE_SSL": "true",
            "REDIS_SSL_CERT_REQS": "CERT_REQUIRED",
            "REDIS_SSL_CA_CERTS": str(authority),
        }
        assert _round_trip(tmp_path, environ) == {"job": "one"}


@pytest.mark.leaks("kombu keeps its connections to sentinels until they are collected")
def test_T29_behind_sentinel(tmp_path: Path) -> None:
    with servers.sentinel() as environ:
        assert _round_trip(tmp_path, environ) == {"job": "one"}
