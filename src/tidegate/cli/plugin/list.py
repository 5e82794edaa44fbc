"""``tidegate plugin list``."""

from __future__ import annotations

import click

from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.show import table
from tidegate.cli.target import Target, as_json, takes_target


@click.command("list", short_help="What is installed for the tenant.")
@takes_target
@as_json
def command(target: Target, as_json: bool) -> None:
    """List the installed plugins of the tenant."""
    rows = installing.installed(Client(target))
    table(
        rows,
        ("plugin_id", "version", "runtime_type", "source", "created_at"),
        as_json=as_json,
    )
    if not as_json:
        click.echo(f"{len(rows)} installed for tenant {target.tenant}", err=True)
