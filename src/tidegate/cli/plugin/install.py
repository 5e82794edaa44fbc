"""``tidegate plugin install``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.plugin.package import pack
from tidegate.cli.show import Progress
from tidegate.cli.target import Target, as_json, takes_target


@click.command("install", short_help="Install packages (or folders, packed first).")
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@takes_target
@as_json
def command(sources: tuple[Path, ...], target: Target, as_json: bool) -> None:
    """Upload and install each of SOURCES: a .difypkg, or a folder that is packed first."""
    client = Client(target)
    progress = Progress()
    results = []
    try:
        for source in sources:
            results.append(_install(client, source, progress))
    finally:
        progress.done()
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    for result in results:
        known = "installed" if result["new"] else "was installed already"
        click.echo(f"{result['identifier']} {known} (tenant {target.tenant})")


def _install(client: Client, source: Path, progress: Progress) -> dict[str, object]:
    progress.step(f"reading {source}")
    data = pack(source) if source.is_dir() else source.read_bytes()
    progress.step(f"uploading {source.name} ({len(data):,} bytes)")
    identifier = installing.upload(client, source.name, data)
    new = installing.install(client, identifier, progress.step)
    return {"identifier": identifier, "new": new}
