"""``tidegate signature generate``."""

from __future__ import annotations

import os

import click

from tidegate import packages


@click.command("generate", short_help="Make a key pair for signing.")
@click.option("-f", "--filename", default="tidegate_signing_key", show_default=True)
def command(filename: str) -> None:
    """Write FILENAME.private.pem (readable by you only) and FILENAME.public.pem."""
    private, public = f"{filename}.private.pem", f"{filename}.public.pem"
    for path in (private, public):
        # Both before either is written: a new private key beside an old public one signs what
        # nobody can verify.
        if os.path.exists(path):
            raise click.ClickException(f"{path} is there already: choose another --filename")
    secret, shared = packages.generate_key()
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    with open(public, "wb") as file:
        file.write(shared)
    click.echo(f"{private}\n{public}")
