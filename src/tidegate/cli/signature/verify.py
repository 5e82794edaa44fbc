"""``tidegate signature verify``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate import packages
from tidegate.cli.target import as_json, local_settings


@click.command("verify", short_help="Check the signature of a package.")
@click.argument("package", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-p",
    "--public-key",
    "--public_key",
    "public_key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file. Default: all keys that this installation trusts.",
)
@as_json
def command(package: Path, public_key: Path | None, as_json: bool) -> None:
    """Say who signed PACKAGE; exit code 1 when nobody did whose key counts."""
    settings = local_settings()
    opened = packages.open_package(package.read_bytes(), limit=settings.max_plugin_package_size)
    keys = (
        [packages.read_public_key(public_key.read_bytes(), str(public_key))]
        if public_key
        else packages.TrustedKeys.load(settings)
    )
    found = packages.examine(opened, keys)
    if isinstance(found, str):
        raise click.ClickException(f"{opened.identifier}: no signature that counts: {found}")
    if as_json:
        click.echo(json.dumps({"identifier": str(opened.identifier), **found.as_dict()}))
        return
    signer = f"{found.signed_by.source} ({found.signed_by.fingerprint[:16]})"
    click.echo(f"{opened.identifier}: {found.authorized_category}, signed by {signer}")
