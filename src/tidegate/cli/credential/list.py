"""``tidegate credential list``."""

from __future__ import annotations

import click

from tidegate.cli.credential import keyring
from tidegate.cli.show import table
from tidegate.cli.target import as_json


@click.command("list", short_help="What is kept, by name; values are not shown.")
@keyring.takes_tenant
@as_json
def command(tenant: str, as_json: bool) -> None:
    """List the providers and models that have credentials, and the names of their keys."""
    from tidegate.backcalls.keyring import open_credentials
    from tidegate.backcalls.vault import Vault
    from tidegate.errors import SecretsUnavailable
    from tidegate.storage import credentials

    with keyring.opened() as (settings, database):
        with database.read() as conn:
            rows = credentials.of_tenant(conn, tenant)
        vault = Vault(settings)
        shown = []
        for row in rows:
            try:
                keys = ", ".join(sorted(open_credentials(vault, row)))
            # One row that cannot be opened must not hide the others.
            except SecretsUnavailable:
                keys = "(made with another key)"
            shown.append(
                {
                    "provider": row.provider,
                    "model_type": row.model_type,
                    "model": row.model,
                    "keys": keys,
                    "updated_at": row.updated_at.isoformat(timespec="seconds"),
                }
            )
    table(shown, ("provider", "model_type", "model", "keys", "updated_at"), as_json=as_json)
