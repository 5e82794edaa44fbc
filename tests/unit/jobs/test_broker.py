"""Which broker the settings mean, and what Celery is told about it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.transport import redis as kombu_redis

from tidegate.jobs import celery_settings
from tidegate.jobs.broker import broker_url
from tidegate.settings import Settings


def conf(**environ: str) -> dict[str, Any]:
    return celery_settings(Settings.load({"TIDEGATE_HOME": "/tmp/home of tide", **environ}))


def url(**environ: str) -> str:
    return broker_url(Settings.load({"TIDEGATE_HOME": "/tmp/home of tide", **environ}))


def test_the_embedded_broker_is_the_default() -> None:
    assert url() == "sqlq:////tmp/home%20of%20tide/broker.db"


def test_redis_is_taken_when_there_is_one() -> None:
    login = {"REDIS_HOST": "cache", "REDIS_PASSWORD": "p@ss/word", "REDIS_DB": "3"}
    assert url(**login) == "redis://:p%40ss%2Fword@cache:6379/3"
    assert url(**login, REDIS_USE_SSL="true").startswith("rediss://")


def test_a_url_wins_over_redis() -> None:
    given = "amqp://guest:guest@mq:5672//"
    assert url(CELERY_BROKER_URL=given, REDIS_HOST="cache") == given


def test_sentinels_are_all_named() -> None:
    settings = conf(
        REDIS_USE_SENTINEL="true",
        REDIS_SENTINELS="a:26379, b:26379",
        REDIS_SENTINEL_SERVICE_NAME="main",
        REDIS_SENTINEL_USERNAME="watch",
        REDIS_SENTINEL_PASSWORD="secret",
        REDIS_SENTINEL_SOCKET_TIMEOUT="0.5",
    )
    assert settings["broker_url"] == "sentinel://a:26379/0;sentinel://b:26379/0"
    options = settings["broker_transport_options"]
    assert options["master_name"] == "main"
    assert options["sentinel_kwargs"] == {
        "username": "watch",
        "password": "secret",
        "socket_timeout": 0.5,
        "socket_connect_timeout": 0.5,
    }
    assert settings["broker_use_ssl"] is None


def test_sentinel_with_tls_has_it_on_both_legs() -> None:
    settings = conf(
        REDIS_USE_SENTINEL="true",
        REDIS_SENTINELS="a:26379",
        REDIS_SENTINEL_SERVICE_NAME="main",
        REDIS_USE_SSL="true",
    )
    assert settings["broker_use_ssl"]["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    watch = settings["broker_transport_options"]["sentinel_kwargs"]
    assert (watch["ssl"], watch["ssl_cert_reqs"]) == (True, ssl.CERT_REQUIRED)


def test_a_cluster_is_no_broker() -> None:
    cluster = {"REDIS_HOST": "cache", "TIDEGATE_REDIS_CLUSTER": "true"}
    assert url(**cluster).startswith("sqlq:")
    assert url(**cluster, CELERY_BROKER_URL="redis://other") == "redis://other"


def test_redis_gives_back_what_a_dead_worker_held() -> None:
    """Both fixes: without them nothing ever comes back under a gevent worker."""
    options = conf(REDIS_HOST="cache")["broker_transport_options"]
    assert options["unacked_restore_throttle"] == 1
    assert kombu_redis.Transport.brpop_timeout > 2


def test_redis_waits_longer_than_any_job_may_take() -> None:
    options = conf(REDIS_HOST="cache", PLUGIN_INSTALL_TIMEOUT="60")["broker_transport_options"]
    assert options["visibility_timeout"] >= 2 * 60 * 60


@pytest.mark.parametrize(
    ("wanted", "given"), [("", ssl.CERT_REQUIRED), ("CERT_NONE", ssl.CERT_NONE)]
)
def test_tls_is_checked_unless_told_otherwise(wanted: str, given: ssl.VerifyMode) -> None:
    settings = conf(
        REDIS_HOST="cache",
        REDIS_USE_SSL="true",
        REDIS_SSL_CERT_REQS=wanted,
        REDIS_SSL_CA_CERTS="/ca.pem",
    )
    assert settings["broker_use_ssl"] == {
        "ssl_cert_reqs": given,
        "ssl_check_hostname": given is ssl.CERT_REQUIRED,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        "ssl_ca_certs": "/ca.pem",
    }


def test_the_embedded_broker_needs_no_options(tmp_path: Path) -> None:
    settings = celery_settings(Settings.load({"TIDEGATE_HOME": str(tmp_path)}))
    assert settings["broker_transport_options"] == {}
    assert settings["broker_use_ssl"] is None
    assert list(tmp_path.iterdir()) == []


def test_each_queue_gets_what_is_meant_for_it_only() -> None:
    app = Celery("queues", set_as_current=False)
    app.conf.update(conf())
    routes = {(queue.exchange.name, queue.routing_key) for queue in app.amqp.queues.values()}
    assert routes == {("installs", "installs"), ("upkeep", "upkeep")}
