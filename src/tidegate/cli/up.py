"""``tidegate up``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tidegate.runtime.launcher import script
from tidegate.runtime.supervise import launch_up


@click.command("up", short_help="Start and watch the four roles on this machine.")
@click.option("--reload", is_flag=True, help="api reloads when its source changes.")
@click.option("--quiet", is_flag=True, help="Leave what the roles say in their logs.")
@click.option("--print", "show", is_flag=True, help="Show the commands of the roles and end.")
@click.option("--check", is_flag=True, help="Do all that comes before serving and end.")
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Install the plugins in this folder once everything serves.",
)
def command(*, reload: bool, quiet: bool, show: bool, check: bool, examples: Path | None) -> None:
    """Start host, worker, beat and api, watch them, stop them in order on Ctrl-C."""
    chosen = {"--reload": reload, "--quiet": quiet, "--print": show, "--check": check}
    # A process of its own: `up` imports nothing that it does not need for watching.
    after = [*script("tidegate"), "examples", str(examples)] if examples else []
    # Absolute before the roles start: their own folder is another one.
    if home := os.environ.get("TIDEGATE_HOME", "").strip():
        os.environ["TIDEGATE_HOME"] = os.path.abspath(os.path.expanduser(home))
    launch_up([flag for flag, given in chosen.items() if given], after_ready=after)
