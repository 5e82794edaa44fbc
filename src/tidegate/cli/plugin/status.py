"""``tidegate plugin status``."""

from __future__ import annotations

import click

from tidegate.cli.client import Client
from tidegate.cli.show import table
from tidegate.cli.target import Target, as_json, takes_target

_COLUMNS = ("plugin", "state", "instances", "sessions", "pid", "restarts", "reason")


@click.command("status", short_help="Which plugins run, and how they are.")
@click.argument("plugin", default="")
@takes_target
@as_json
def command(plugin: str, target: Target, as_json: bool) -> None:
    """Show what the host knows of each plugin, or of PLUGIN (author/name or identifier)."""
    rows = Client(target).root("GET", "/debug/plugins")["plugins"]
    shown = [row for row in rows if not plugin or str(row.get("plugin", "")).startswith(plugin)]
    if plugin and not shown:
        raise click.ClickException(f"the host knows no {plugin}")
    table(shown, _COLUMNS, as_json=as_json)
