"""``tidegate migrate``."""

from __future__ import annotations

import os

import click

from tidegate.runtime import prepare_home


@click.command("migrate", short_help="Bring the database to this version.")
def command() -> None:
    """Create or upgrade the tables, under a lock. `tidegate up` does it by itself.

    One-shot, and so exempt from the gevent-only rule: it runs unpatched.
    """
    from tidegate import storage

    settings = prepare_home(os.environ)
    storage.migrate(settings)
    click.echo(f"{settings.database_kind} database is up to date")
