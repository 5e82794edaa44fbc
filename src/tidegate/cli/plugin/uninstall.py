"""``tidegate plugin uninstall``."""

from __future__ import annotations

import click

from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.target import Target, takes_target


@click.command("uninstall", short_help="Remove a plugin from the tenant.")
@click.argument("plugin")
@takes_target
def command(plugin: str, target: Target) -> None:
    """Uninstall PLUGIN (author/name, identifier or installation id) for the tenant."""
    client = Client(target)
    row = installing.find(client, plugin)
    client.post("management/uninstall", {"plugin_installation_id": row["id"]})
    click.echo(f"{row['plugin_unique_identifier']} uninstalled (tenant {target.tenant})")
