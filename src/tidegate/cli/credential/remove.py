"""``tidegate credential remove``."""

from __future__ import annotations

import click

from tidegate.cli.credential import keyring


@click.command("remove", short_help="Forget credentials.")
@keyring.takes_place
def command(provider: str, model_type: str, model: str, tenant: str) -> None:
    """Forget the credentials of a provider, or of one model of it."""
    from tidegate.storage import credentials

    keyring.check_place(model_type, model)
    with keyring.opened() as (_, database), database.write() as conn:
        gone = credentials.remove(conn, tenant, provider, model_type, model)
    place = keyring.shown(provider, model_type, model)
    if not gone:
        raise click.ClickException(f"nothing is kept for {place}, tenant {tenant}")
    click.echo(f"{place}: forgotten for tenant {tenant}")
