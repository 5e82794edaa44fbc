"""``tidegate signature sign``."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate import packages
from tidegate.cli.target import local_settings


@click.command("sign", short_help="Sign a package.")
@click.argument("package", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-p",
    "--private-key",
    "--private_key",
    "private_key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of the private key.",
)
@click.option(
    "-c",
    "--category",
    "--authorized_category",
    "category",
    default="community",
    show_default=True,
    type=click.Choice(["langgenius", "partner", "community"]),
    help="What the signer states; only the official key can make langgenius count.",
)
def command(package: Path, private_key: Path, category: str) -> None:
    """Write NAME.signed.difypkg beside PACKAGE. The identifier changes with the signature."""
    limit = local_settings().max_plugin_package_size
    opened = packages.open_package(package.read_bytes(), limit=limit)
    data = packages.sign(opened, private_key.read_bytes(), category)
    path = package.with_name(f"{package.stem}.signed.difypkg")
    path.write_bytes(data)
    click.echo(f"{path}: {packages.open_package(data, limit=limit).identifier}")
