"""The stored credentials, opened directly: a command on the machine that has the data folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from tidegate.cli.target import DEFAULT_TENANT
from tidegate.ids import is_uuid
from tidegate.runtime import prepare_home

if TYPE_CHECKING:
    from tidegate.settings import Settings
    from tidegate.storage import Database

MODEL_TYPES: Final = ("llm", "text-embedding", "rerank", "tts", "speech2text", "moderation")
_PROVIDER: Final = re.compile(r"[a-z0-9_-]+/[a-z0-9_-]+/[^/\s]+")


@contextmanager
def opened() -> Iterator[tuple[Settings, Database]]:
    """The settings of this shell and the database that they lead to, with its tables."""
    from tidegate import storage

    # Made where it is missing: credentials may be set before the first start.
    settings = prepare_home(os.environ)
    storage.migrate(settings)
    database = storage.Database(settings)
    try:
        yield settings, database
    finally:
        database.dispose()


def takes_tenant(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--tenant``."""
    return click.option(
        "--tenant",
        default=DEFAULT_TENANT,
        callback=lambda ctx, parameter, value: _tenant(value),
        help=f"Tenant (a UUID). Default: {DEFAULT_TENANT}.",
    )(command)


def takes_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--provider --model-type --model --tenant``: what the credentials are for."""
    for decorate in (
        takes_tenant,
        click.option("--model", default="", help="For this model only; needs --model-type."),
        click.option(
            "--model-type", default="", type=click.Choice(["", *MODEL_TYPES]), help="Its type."
        ),
        click.option(
            "--provider",
            required=True,
            callback=lambda ctx, parameter, value: _provider(value),
            help="author/name/provider, for example langgenius/openai/openai.",
        ),
    ):
        command = decorate(command)
    return command


def check_place(model_type: str, model: str) -> None:
    """UsageError when only one of the two was given."""
    if bool(model_type) != bool(model):
        raise click.UsageError("--model-type and --model go together")


def shown(provider: str, model_type: str, model: str) -> str:
    """The place in one word or three."""
    return f"{provider} ({model_type} {model})" if model else provider


def _tenant(text: str) -> str:
    if not is_uuid(text):
        raise click.BadParameter(f"{text!r} is no UUID")
    return text


def _provider(text: str) -> str:
    if not _PROVIDER.fullmatch(text):
        raise click.BadParameter(f"takes author/name/provider, not {text!r}")
    return text
