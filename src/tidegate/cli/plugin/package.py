"""``tidegate plugin package``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate import packages
from tidegate.cli.target import as_json, local_settings


@click.command("package", short_help="Make a .difypkg of a plugin's folder.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.")
@as_json
def command(folder: Path, output: Path | None, as_json: bool) -> None:
    """Check FOLDER and pack it into a .difypkg, as .difyignore says."""
    data = packages.build_package(folder)
    package = packages.open_package(data, limit=local_settings().max_plugin_package_size)
    path = output or Path(f"{folder.resolve().name}.difypkg")
    path.write_bytes(data)
    facts = {"file": str(path), "identifier": str(package.identifier), "bytes": len(data)}
    click.echo(json.dumps(facts) if as_json else f"{path}: {package.identifier}")
