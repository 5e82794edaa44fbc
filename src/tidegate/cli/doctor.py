"""``tidegate doctor``: one quick check per room."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from tidegate.cli.client import Client, Unreachable
from tidegate.cli.show import table
from tidegate.cli.target import Target, as_json, local_settings
from tidegate.errors import CallFailed, TidegateError
from tidegate.runtime import launcher
from tidegate.runtime.home import link_socket
from tidegate.settings import Secret, Settings

_ROOM_ON_DISK = 1 << 30


class Warned(Exception):
    """Worth knowing, no reason to fail."""


@click.command("doctor", short_help="Check this installation, room by room.")
@as_json
def command(as_json: bool) -> int:
    """Check settings, folders, database, tools and running roles. Exit code 1 if one is broken."""
    rows = list(_examine(local_settings()))
    table(rows, ("check", "state", "says"), as_json=as_json)
    return 1 if any(row["state"] == "broken" for row in rows) else 0


def _examine(settings: Settings) -> Iterator[dict[str, Any]]:
    # Every check, whatever the one before said: a person mends all of them at once.
    for name, check in _CHECKS.items():
        try:
            says, state = check(settings), "ok"
        except Warned as warning:
            says, state = str(warning), "warning"
        except (TidegateError, click.ClickException) as error:
            says, state = error.message, "broken"
        except (OSError, ImportError) as error:
            says, state = f"{type(error).__name__}: {error}", "broken"
        yield {"check": name, "state": state, "says": says}


def _python(settings: Settings) -> str:
    for role in launcher.ROLES:
        launcher.require_installed(role)
    return f"{sys.version.split()[0]} at {sys.executable}"


def _folder(settings: Settings) -> str:
    root = settings.home.root
    if not root.exists():
        raise Warned(f"{root} is not there yet: the first start makes it")
    if not os.access(root, os.W_OK):
        raise click.ClickException(
            f"{root} is not writable: set TIDEGATE_HOME to a folder of yours"
        )
    free = shutil.disk_usage(root).free
    if free < _ROOM_ON_DISK:
        raise Warned(f"{root}: only {free >> 20} MB are free")
    return f"{root}, {free >> 30} GB free"


def _keys(settings: Settings) -> str:
    if settings.tidegate_allow_published_keys:
        raise Warned("TIDEGATE_ALLOW_PUBLISHED_KEYS is set: published keys are accepted")
    if settings.server_key.reveal():
        return "SERVER_KEY from the environment"
    path = settings.home.keys / "server.key"
    if not path.exists():
        raise Warned(f"{path} is not there yet: the first start makes it")
    # It opens the api: whoever reads it can install plugins, and so run code as this user.
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise click.ClickException(f"{path} can be read by others: chmod 600 it")
    return str(path)


def _uv(settings: Settings) -> str:
    if settings.uv_path:
        found = shutil.which(settings.uv_path)
        if found is None:
            raise click.ClickException(f"UV_PATH={settings.uv_path} cannot be run")
        return found
    from uv import find_uv_bin

    return find_uv_bin()


def _signatures(settings: Settings) -> str:
    from tidegate import packages

    keys = packages.TrustedKeys.load(settings)
    if keys.refused:
        raise Warned("; ".join(keys.refused))
    if not settings.force_verifying_signature:
        raise Warned("FORCE_VERIFYING_SIGNATURE=false: unsigned packages are taken")
    return f"{len(keys.keys)} trusted keys, signatures required"


def _database(settings: Settings) -> str:
    if settings.database_kind == "sqlite" and not settings.home.database.exists():
        raise Warned("no database yet: `tidegate migrate` (or the first start) makes it")
    from tidegate import storage

    database = storage.Database(settings)
    try:
        with database.read() as connection:
            connection.exec_driver_sql("SELECT 1")
    finally:
        database.dispose()
    if not storage.is_current(settings):
        raise Warned(f"{settings.database_kind} lacks tables of this version: `tidegate migrate`")
    return f"{settings.database_kind} answers"


def _backcalls(settings: Settings) -> str:
    if settings.backcalls == "self":
        return "answered here (TIDEGATE_BACKCALLS=self); what only Dify has is refused"
    from tidegate.backcalls.wiring import check_inner_api

    try:
        return check_inner_api(settings)
    except CallFailed as error:
        if "status" in error.details:
            raise
        raise Warned(error.message) from error  # it may be started later, as the roles are


def _host(settings: Settings) -> str:
    if settings.tidegate_link_host:
        return _host_elsewhere(settings.tidegate_link_host)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        if probe.connect_ex(os.fsencode(link_socket(settings))):
            raise Warned("host does not run")
    return str(link_socket(settings))


def _host_elsewhere(address: str) -> str:
    name, _, port = address.rpartition(":")
    try:
        socket.create_connection((name.strip("[]"), int(port)), timeout=2).close()
    except (OSError, ValueError) as error:
        raise Warned(f"no host answers at {address} (TIDEGATE_LINK_HOST): {error}") from None
    return address


def _isolation(settings: Settings) -> str:
    """What the host wrote when it started: only it can try the rungs."""
    try:
        found = json.loads((settings.home.run / "isolation.json").read_bytes())
    except (OSError, ValueError):
        asked = settings.tidegate_isolation
        raise Warned(f"rung {asked} is asked for; host does not run") from None
    says = f"rung {found['rung']}, asked for {found['asked']}"
    if found["cgroup"]:
        says += f", cgroups below {found['cgroup']}"
    refused = "; ".join(f"rung {rung} not: {why}" for rung, why in found["why_not"].items())
    if found["rung"] == 0:
        raise Warned(f"{says}: plugins have no limits")
    return f"{says}{'; ' if refused else ''}{refused}"


def _api(settings: Settings) -> str:
    base = f"http://127.0.0.1:{settings.server_port}"
    try:
        client = Client(Target(base, Secret(""), ""), patience=5)
        health = client.root("GET", "/health/check")
    except Unreachable as error:
        raise Warned(f"api does not answer at {base}") from error
    if not isinstance(health, dict) or "status" not in health:
        raise click.ClickException(f"something else answers at {base} (SERVER_PORT): {health!r}")
    return f"{base} {health['status']}, version {health.get('version')}"


_CHECKS: dict[str, Callable[[Settings], str]] = {
    "python": _python,
    "data folder": _folder,
    "keys": _keys,
    "environments": _uv,
    "packages": _signatures,
    "storage": _database,
    "back-calls": _backcalls,
    "host": _host,
    "isolation": _isolation,
    "api": _api,
}
