"""``tidegate api|worker|beat|host``: shown in the help here; started by ``cli.main`` itself."""

from __future__ import annotations

import click

__all__ = ["role_command"]


def role_command(role: str, does: str) -> click.Command:
    """The command of one role. It only runs when ``main`` was not the way in."""

    def start(arguments: tuple[str, ...]) -> None:
        from tidegate.runtime.launcher import launch

        launch(role, arguments)

    return click.Command(
        role,
        callback=start,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        help=f"{does}\n\n--print shows the command, --check does all that comes before serving;"
        " other arguments go to the program behind it.",
        short_help=does,
        context_settings={"ignore_unknown_options": True},
    )
