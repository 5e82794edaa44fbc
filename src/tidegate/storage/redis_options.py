"""How the REDIS_* settings are said to redis-py, and to kombu, which passes them on to it.

Nothing is imported from redis here: the broker's settings are made in processes without one.
"""

from __future__ import annotations

import ssl
from typing import Any

from tidegate.errors import SettingInvalid
from tidegate.settings import Settings

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 5.0
"""A request waits no longer for a Redis that does not answer (D-62)."""


def is_used(settings: Settings) -> bool:
    """Whether the settings name a Redis."""
    return bool(settings.redis_host or (settings.redis_use_sentinel and settings.redis_sentinels))


def login(settings: Settings) -> dict[str, Any]:
    """Name and password."""
    given: dict[str, Any] = {}
    if settings.redis_username:
        given["username"] = settings.redis_username
    if settings.redis_password:
        given["password"] = settings.redis_password.reveal()
    return given


def sentinel_login(settings: Settings) -> dict[str, Any]:
    """What connections to the sentinels themselves take; TLS as the servers' when it is on."""
    given: dict[str, Any] = {}
    if settings.redis_sentinel_username:
        given["username"] = settings.redis_sentinel_username
    if settings.redis_sentinel_password:
        given["password"] = settings.redis_sentinel_password.reveal()
    given["socket_timeout"] = settings.redis_sentinel_socket_timeout or CONNECT_SECONDS
    given["socket_connect_timeout"] = given["socket_timeout"]
    if settings.redis_use_ssl:
        given |= {"ssl": True, **tls(settings)}
    return given


def sentinels(settings: Settings) -> list[tuple[str, int]]:
    """(host, port) of each sentinel; SettingInvalid for an entry that is none."""
    found = []
    for entry in settings.redis_sentinels:
        host, _, port = entry.rpartition(":")
        if not (host and port.isdigit()):
            raise SettingInvalid(f"REDIS_SENTINELS takes host:port, …, not {entry!r}")
        found.append((host.strip("[]"), int(port)))
    if not settings.redis_sentinel_service_name:
        raise SettingInvalid("REDIS_SENTINEL_SERVICE_NAME is needed with REDIS_USE_SENTINEL")
    return found


def tls(settings: Settings) -> dict[str, Any]:
    """The ``ssl_*`` arguments (spec/http/06 section 2.7): verified unless CERT_NONE, TLS 1.2 up."""
    wanted = settings.redis_ssl_cert_reqs or "CERT_OPTIONAL"
    if wanted not in ("CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED"):
        raise SettingInvalid(
            f"REDIS_SSL_CERT_REQS takes CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED, not {wanted!r}"
        )
    if wanted == "CERT_REQUIRED" and not settings.redis_ssl_ca_certs:
        raise SettingInvalid("REDIS_SSL_CA_CERTS is needed with REDIS_SSL_CERT_REQS=CERT_REQUIRED")
    verified = wanted != "CERT_NONE"
    given: dict[str, Any] = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED if verified else ssl.CERT_NONE,
        "ssl_check_hostname": verified,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }
    if settings.redis_ssl_ca_certs:
        given["ssl_ca_certs"] = settings.redis_ssl_ca_certs
    return given
