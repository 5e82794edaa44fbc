"""Which Tidegate a command talks to: address, key, tenant; and where its data folder is.

Defaults come from the environment and from the data folder: the port is SERVER_PORT, the key
SERVER_KEY or ``keys/server.key``. Nothing is made or written here.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import click

from tidegate.ids import is_uuid
from tidegate.runtime.home import default_home
from tidegate.settings import Secret, Settings

#: Tenant of the command line and of ``make run`` when nobody names another.
DEFAULT_TENANT = "71de6a7e-0000-4000-8000-000000000001"


@final
@dataclass(frozen=True, slots=True)
class Target:
    """Address, key and tenant of the Tidegate that a command talks to."""

    base: str
    key: Secret
    tenant: str


def local_settings() -> Settings:
    """Settings of this shell with the data folder filled in; SettingInvalid when one is wrong."""
    settings = Settings.load(os.environ)
    # Not `prepare_home`, which makes it: a command that only asks must leave no folder behind.
    home = settings.tidegate_home or str(default_home(os.environ))
    return dataclasses.replace(settings, tidegate_home=os.path.abspath(os.path.expanduser(home)))


def local_target(settings: Settings, *, base: str = "", key: str = "", tenant: str = "") -> Target:
    """What was named, else the Tidegate of this machine. ClickException when no key is known."""
    if tenant and not is_uuid(tenant):
        raise click.BadParameter(f"{tenant!r} is no UUID", param_hint="--tenant")
    return Target(
        (base or f"http://127.0.0.1:{settings.server_port}").rstrip("/"),
        Secret(key) if key else _local_key(settings),
        tenant or DEFAULT_TENANT,
    )


def _local_key(settings: Settings) -> Secret:
    if settings.server_key.reveal():
        return settings.server_key
    path = settings.home.keys / "server.key"
    try:
        return Secret(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise click.ClickException(
            f"no key: {path} cannot be read ({error.strerror}); "
            "start Tidegate once, or give --key or SERVER_KEY"
        ) from error


def takes_target(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--base --key --tenant`` and passes a :class:`Target` as ``target``."""

    @click.option("--base", default="", help="Address. Default: this machine, SERVER_PORT.")
    @click.option("--key", default="", help="X-Api-Key. Default: SERVER_KEY or keys/server.key.")
    @click.option("--tenant", default="", help=f"Tenant (a UUID). Default: {DEFAULT_TENANT}.")
    @functools.wraps(command)
    def wrapper(*args: Any, base: str, key: str, tenant: str, **rest: Any) -> Any:
        target = local_target(local_settings(), base=base, key=key, tenant=tenant)
        return command(*args, target=target, **rest)

    return wrapper


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
