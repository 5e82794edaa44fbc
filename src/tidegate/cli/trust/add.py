"""``tidegate trust add``."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate import packages
from tidegate.cli.target import local_settings
from tidegate.cli.trust import keys
from tidegate.errors import PackageRejected
from tidegate.runtime.home import write_whole


@click.command("add", short_help="Trust a public key.")
@click.argument("key", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="What to call it. Default: the name of the file.")
def command(key: Path, name: str) -> None:
    """Trust the public key in KEY, a PEM file. Packages that it signed count from now on.

    Such a package is at most of the category partner or community: langgenius stays official.
    """
    settings = local_settings()
    content = key.read_bytes()
    try:
        read = packages.read_public_key(content, str(key))
    except PackageRejected as error:
        raise click.ClickException(f"{key} {error.message}") from None
    path = keys.path_of(settings, name or key.name.removesuffix(".pem").removesuffix(".public"))
    # The same again is no mistake; another key under a known name would silently replace whom one
    # trusts.
    if path.exists() and path.read_bytes() != content:
        raise click.ClickException(f"another key is called {path.stem}: give --name")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Whole or not at all: every upload reads this folder.
    write_whole(path, content)
    click.echo(f"{path.stem}: trusted, SHA-256 {read.fingerprint}")
