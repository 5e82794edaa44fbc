"""``tidegate plugin upgrade``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.plugin.package import pack
from tidegate.cli.show import Progress
from tidegate.cli.target import Target, as_json, takes_target


@click.command("upgrade", short_help="Move the tenant to another version of a plugin.")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@takes_target
@as_json
def command(source: Path, target: Target, as_json: bool) -> None:
    """Upload SOURCE and move the tenant to it, up or down: a .difypkg, or a folder to pack.

    Running calls end on the version that they began on.
    """
    client, progress = Client(target), Progress()
    try:
        progress.step(f"uploading {source.name}")
        data = pack(source) if source.is_dir() else source.read_bytes()
        identifier = installing.upload(client, source.name, data)
        before = installing.upgrade(client, identifier, progress.step)
    finally:
        progress.done()
    if as_json:
        click.echo(json.dumps({"identifier": identifier, "before": before}))
    elif before == identifier:
        click.echo(f"{identifier} was installed already (tenant {target.tenant})")
    else:
        click.echo(f"{identifier} installed in place of {before} (tenant {target.tenant})")
