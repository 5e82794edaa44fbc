"""``tidegate trust list``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tidegate import packages
from tidegate.cli import show
from tidegate.cli.target import as_json, local_settings
from tidegate.packages import TrustedKey


@click.command("list", short_help="Show the keys that are trusted.")
@as_json
def command(as_json: bool) -> None:
    """Show every key whose signature counts, and each that cannot be used, with the reason."""
    keys = packages.TrustedKeys.load(local_settings())
    rows = [_row(key) for key in keys.keys]
    rows += [{"name": "", "sha256": "", "state": refused} for refused in keys.refused]
    show.table(rows, ["name", "sha256", "state"], as_json=as_json)


def _row(key: TrustedKey) -> dict[str, Any]:
    name = key.source if key.official else Path(key.source).stem
    return {"name": name, "sha256": key.fingerprint, "state": "trusted", "source": key.source}
