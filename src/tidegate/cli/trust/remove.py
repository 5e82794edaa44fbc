"""``tidegate trust remove``."""

from __future__ import annotations

import click

from tidegate.cli.target import local_settings
from tidegate.cli.trust import keys


@click.command("remove", short_help="Do not trust a key any more.")
@click.argument("name")
def command(name: str) -> None:
    """Forget the key NAME. What is installed stays; new uploads that it signed do not count."""
    path = keys.path_of(local_settings(), name)
    if not path.exists():
        raise click.ClickException(f"no added key is called {path.stem} (tidegate trust list)")
    path.unlink()
    click.echo(f"{path.stem}: not trusted any more")
