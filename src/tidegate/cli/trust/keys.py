"""The folder of added keys: ``keys/trusted/<name>.pem`` below the data folder.

Each upload reads it anew (:class:`tidegate.packages.TrustedKeys`), so a change needs no restart.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from tidegate.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def folder(settings: Settings) -> Path:
    """Where they are; it may not exist yet."""
    return settings.home.keys / "trusted"


def path_of(settings: Settings, name: str) -> Path:
    """The file of one key. UsageError for a name that could lead elsewhere."""
    name = name.removesuffix(".pem")
    if _NAME.fullmatch(name) is None:
        raise click.UsageError(
            f"{name!r} is no name for a key: letters, digits, dots, dashes, at most 64"
        )
    return folder(settings) / f"{name}.pem"
