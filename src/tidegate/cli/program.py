"""The tree of commands, loaded one by one when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import click

from tidegate import __version__
from tidegate.errors import StartRefused, TidegateError

INTERRUPTED = 130
FAILED = 1
MISUSED = 2


@final
class LazyGroup(click.Group):
    """A group whose commands are modules below ``package``, each with a ``command``."""

    def __init__(self, *, package: str, modules: Mapping[str, str], **rest: Any) -> None:
        super().__init__(**rest)
        self._package = package
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: the order in which a person needs them."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the module of the command; None for an unknown one."""
        if cmd_name not in self._modules:
            return None
        module = importlib.import_module(f"{self._package}.{self._modules[cmd_name]}")
        found: click.Command = module.command
        return found


root = LazyGroup(
    name="tidegate",
    package="tidegate.cli",
    modules={
        "up": "up",
        "api": "roles.api",
        "worker": "roles.worker",
        "beat": "roles.beat",
        "host": "roles.host",
        "migrate": "migrate",
        "plugin": "plugin",
        "signature": "signature",
        "trust": "trust",
        "credential": "credential",
        "logs": "logs",
        "examples": "examples",
        "faults": "faults",
        "doctor": "doctor",
    },
    help="Hosts Dify plugins, each in its own process.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda ctx, _, value: _show_version(ctx) if value else None,
            help="Show the version and end.",
        )
    ],
)


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code. Errors become one line on standard error."""
    try:
        result = root.main(list(arguments), prog_name="tidegate", standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    # Before UsageError, which it is: help is not an error of one line.
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message, err=True)
        return MISUSED
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "tidegate"
        return _refuse(f"{error.format_message()} (see {where} --help)", MISUSED)
    except click.ClickException as error:
        return _refuse(error.format_message(), FAILED)
    except TidegateError as error:
        return _refuse(
            error.message, error.exit_code if isinstance(error, StartRefused) else FAILED
        )
    # `tidegate logs x | head` ends like that.
    except BrokenPipeError:
        return FAILED
    return result if isinstance(result, int) else 0


def _refuse(message: str, code: int) -> int:
    click.echo("tidegate: " + " ".join(message.split("\n")), err=True)
    return code


def _show_version(ctx: click.Context) -> None:
    click.echo(f"tidegate {__version__}")
    ctx.exit()
