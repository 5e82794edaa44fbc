"""``tidegate credential set``."""

from __future__ import annotations

import json
from typing import IO, Any

import click

from tidegate.cli.credential import keyring


@click.command("set", short_help="Keep credentials of a provider or a model, encrypted.")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--file",
    "source",
    type=click.File("r", encoding="utf-8"),
    help="A JSON object to take values from; - is standard input, which no process list shows.",
)
@keyring.takes_place
def command(
    values: tuple[str, ...],
    source: IO[str] | None,
    provider: str,
    model_type: str,
    model: str,
    tenant: str,
) -> None:
    """Keep KEY=VALUE credentials; they replace those that were kept for the same place."""
    from tidegate.backcalls.keyring import seal_credentials
    from tidegate.backcalls.vault import Vault
    from tidegate.storage import credentials

    keyring.check_place(model_type, model)
    given = {**_from_file(source), **dict(map(_pair, values))}
    if not given:
        raise click.UsageError("nothing to keep: give KEY=VALUE, or --file")
    with keyring.opened() as (settings, database):
        sealed = seal_credentials(Vault(settings), tenant, provider, model_type, model, given)
        with database.write() as conn:
            credentials.put(conn, tenant, provider, model_type, model, sealed)
    place = keyring.shown(provider, model_type, model)
    click.echo(f"{place}: kept {', '.join(sorted(given))} for tenant {tenant}")


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError("credentials are given as KEY=VALUE")  # not what was typed: a secret
    return key, value


def _from_file(source: IO[str] | None) -> dict[str, Any]:
    if source is None:
        return {}
    try:
        found = json.load(source)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.UsageError("--file must hold a JSON object")
    return found
