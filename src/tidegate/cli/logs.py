"""``tidegate logs``."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

import click

from tidegate.cli.target import local_settings
from tidegate.settings import Home

_PAUSE = 0.2


@click.command("logs", short_help="A plugin's or a role's log.")
@click.argument("name", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", default=50, show_default=True, help="Last lines to begin with.")
def command(name: str, follow: bool, lines: int) -> None:
    """Print the log of NAME: a plugin (author/name) or a role. Without NAME, list the logs."""
    home = local_settings().home
    if not name:
        for path in sorted(home.logs.rglob("*.log")):
            click.echo(f"{_name(home, path)}\t{path}")
        return
    path = _find(home, name)
    # As bytes: a plugin's output may be no text at all.
    with path.open("rb") as file:
        for line in deque(file, maxlen=max(0, lines)):
            _show(line)
        if follow:
            _follow(path, file)


def _name(home: Home, path: Path) -> str:
    relative = path.relative_to(home.logs).with_suffix("")
    return str(relative).removeprefix("plugins/")


def _find(home: Home, name: str) -> Path:
    name = name.split(":", 1)[0]
    for path in sorted(home.logs.rglob("*.log")):
        if _name(home, path) == name:
            return path
    raise click.ClickException(f"no log of {name} below {home.logs} (tidegate logs lists them)")


def _follow(path: Path, file: BinaryIO) -> None:
    """Until interrupted. A rotated file is opened anew."""
    while True:
        for line in file:
            _show(line)
        time.sleep(_PAUSE)
        # By the inode: the log is renamed when it is rotated, and our descriptor still reads the
        # old one.
        if path.exists() and path.stat().st_ino != Path(f"/dev/fd/{file.fileno()}").stat().st_ino:
            with path.open("rb") as renewed:
                _follow(path, renewed)


def _show(line: bytes) -> None:
    click.echo(line.decode("utf-8", "replace").rstrip("\n"))
