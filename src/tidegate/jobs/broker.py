"""Which broker there is, and what Celery has to be told for it to lose nothing.

| broker | when |
|---|---|
| embedded (``sqlq``) | neither CELERY_BROKER_URL nor REDIS_HOST is given, or that is a cluster |
| Redis | REDIS_HOST, or a ``redis://``, ``rediss://`` or ``sentinel://`` URL |
| RabbitMQ | an ``amqp://`` URL |

Redis under a gevent worker needs two settings, or what a killed worker held never comes back:
kombu looks for it only when its own poll times out, which a shorter BRPOP prevents, and then only
every tenth time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

from tidegate.settings import Settings
from tidegate.storage import redis_options

INSTALLS = "installs"
"""Queue of jobs that somebody waits for."""

UPKEEP = "upkeep"
"""Queue of the schedule and of cleaning up."""

RUN_JOB = "tidegate.jobs.run"
"""The worker's task that runs one job by its id."""

_REDIS_POLL = 3
"""Seconds of a BRPOP: longer than the 2 s that kombu polls."""

_HOUR = 3600


def broker_url(settings: Settings) -> str:
    """The broker's URL, password included: for Celery only, never for a log."""
    if settings.celery_broker_url:
        return settings.celery_broker_url.reveal()
    if settings.redis_use_sentinel and settings.redis_sentinels:
        return _sentinel_url(settings)
    if settings.redis_host and not settings.tidegate_redis_cluster:  # kombu knows no cluster
        return _redis_url(settings)
    return f"sqlq:///{quote(str(settings.home.broker))}"


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for this broker, the same for senders, worker and beat.

    Makes the broker's transport ready as well; opens nothing.
    """
    url = broker_url(settings)
    prepare_transport(url)
    return {
        "broker_url": url,
        "broker_transport_options": _transport_options(settings, url),
        "broker_use_ssl": _tls(settings, url),
        # A broker that starts later than we do (compose) is the usual case and no reason to end.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker that gives up is a worker that is gone
        # A message is gone when its job is done, not when a worker took it: the row decides
        # whether a second delivery does anything (contract: jobs).
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_send_sent_event": False,
        "worker_send_task_events": False,
        # What one worker holds back, an idle one cannot take; an install of minutes would keep
        # others behind it.
        "worker_prefetch_multiplier": 1,
        # The job's row has a lease of its own: a broker that goes away for a moment is no reason
        # to stop a build.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_queues": [_queue(INSTALLS), _queue(UPKEEP)],
        "task_default_queue": UPKEEP,
        # A typo in a queue's name is an error at once, not a queue that nobody reads.
        "task_create_missing_queues": False,
        "task_serializer": "json",
        # Never pickle: whoever can write to the broker could run code.
        "accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "event_queue_ttl": 10,
    }


def prepare_transport(url: str) -> None:
    """Tell kombu of the embedded transport; make Redis look for what dead workers held."""
    TRANSPORT_ALIASES["sqlq"] = "tidegate.jobs.transport:Transport"
    if url.startswith(("redis", "sentinel")):
        from kombu.transport.redis import Transport

        Transport.brpop_timeout = _REDIS_POLL


def _queue(name: str) -> Queue:
    """With its own exchange: Celery would bind both queues to one, and both get everything."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def _transport_options(settings: Settings, url: str) -> dict[str, Any]:
    if not url.startswith(("redis", "sentinel")):
        return {}
    options: dict[str, Any] = {
        # Redis gives a message out again after this although its worker lives. It must be longer
        # than the longest job; four times leaves room for one that waits for a host.
        "visibility_timeout": max(_HOUR, 4 * 60 * settings.plugin_install_timeout),
        "unacked_restore_throttle": 1,
        "global_keyprefix": f"{settings.redis_key_prefix}:",
        "socket_connect_timeout": 5,
        # A consumer waits on an idle connection for hours: a firewall that forgot it would never
        # say so.
        "socket_keepalive": True,
    }
    if url.startswith("sentinel"):
        options["master_name"] = settings.redis_sentinel_service_name
        options["sentinel_kwargs"] = redis_options.sentinel_login(settings)
    return options


def _redis_url(settings: Settings) -> str:
    scheme = "rediss" if settings.redis_use_ssl else "redis"
    host = f"{_login(settings)}{settings.redis_host}:{settings.redis_port}"
    return f"{scheme}://{host}/{settings.redis_db}"


def _sentinel_url(settings: Settings) -> str:
    return ";".join(
        f"sentinel://{_login(settings)}{address}/{settings.redis_db}"
        for address in settings.redis_sentinels
    )


def _login(settings: Settings) -> str:
    password = settings.redis_password.reveal()
    if not (settings.redis_username or password):
        return ""
    return f"{quote(settings.redis_username, safe='')}:{quote(password, safe='')}@"


def _tls(settings: Settings, url: str) -> dict[str, Any] | None:
    """Also for a URL of the operator's own: the scheme says whether, REDIS_SSL_* say how."""
    if url.startswith("rediss") or (url.startswith("sentinel") and settings.redis_use_ssl):
        return redis_options.tls(settings)
    return None
