"""What a person sees: tables, and how far a longer step is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any, final

import click


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows as aligned columns, or as one JSON list with everything that is known."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2, ensure_ascii=False))
        return
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [
        max(len(column), *(len(line[index]) for line in cells)) if cells else len(column)
        for index, column in enumerate(columns)
    ]
    for line in [[column.upper() for column in columns], *cells]:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _text(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


@final
class Progress:
    """One step after the other on standard error; a terminal sees one line that changes."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def step(self, text: str) -> None:
        """What is being done now; said once, however often it is called."""
        text = " ".join(text.split())
        if text == self._last:
            return
        self._last = text
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            click.echo("\r\x1b[K" + text[:width], nl=False, err=True)
        else:
            click.echo(text, err=True)

    def done(self) -> None:
        """Leave the terminal's line clean for what follows."""
        if self._terminal and self._last:
            click.echo("\r\x1b[K", nl=False, err=True)
        self._last = ""
