"""``tidegate plugin restart``."""

from __future__ import annotations

import click

from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.target import Target, takes_target


@click.command("restart", short_help="Start a plugin's process anew; running calls end first.")
@click.argument("plugin")
@takes_target
def command(plugin: str, target: Target) -> None:
    """Restart PLUGIN (author/name or identifier): a new process, the old one drains."""
    client = Client(target)
    row = installing.find(client, plugin)
    identifier = row["plugin_unique_identifier"]
    client.debug("POST", "plugins/restart", {"plugin_unique_identifier": identifier})
    click.echo(f"{identifier} restarted")
