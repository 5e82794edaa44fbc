"""``tidegate plugin status``."""

from __future__ import annotations

from typing import Any

import click

from tidegate.cli.client import Client
from tidegate.cli.show import table
from tidegate.cli.target import Target, as_json, takes_target

_COLUMNS = ("plugin", "phase", "pids", "sessions", "memory", "starts", "deaths", "last_error")


@click.command("status", short_help="Which plugins run, and how they are.")
@click.argument("plugin", default="")
@takes_target
@as_json
def command(plugin: str, target: Target, as_json: bool) -> None:
    """Show what the host knows of each plugin, or of PLUGIN (author/name or identifier)."""
    rows = Client(target).debug("GET", "plugins")
    rows = [row for row in rows if not plugin or _is(plugin, str(row["identifier"]))]
    if plugin and not rows:
        raise click.ClickException(f"the host knows no {plugin}: it starts with its first call")
    table(rows if as_json else [_line(row) for row in rows], _COLUMNS, as_json=as_json)


def _is(plugin: str, identifier: str) -> bool:
    # Not any beginning: acme/mail is not acme/mailer.
    return identifier == plugin or identifier.startswith((f"{plugin}:", f"{plugin}@"))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    instances = row["instances"]
    memory = sum(one["memory_bytes"] for one in instances)
    return {
        **row,
        "plugin": row["identifier"].split("@")[0],
        "pids": ",".join(str(one["pid"]) for one in instances),
        "sessions": sum(one["sessions"] for one in instances),
        "memory": f"{memory >> 20} MB" if memory else "",
        "last_error": " ".join(row["last_error"].split())[:60],
    }
