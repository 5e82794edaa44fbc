"""Hold docs/compatibility.md against a run of the probe of the daemon's documented behaviour.

compatibility.py RUN.json     RUN.json is what the probe wrote with --json: a list of
                              {"id", "ok", ...}, one entry per check

Says which differences the page does not explain and which of its rows are no difference any more;
non-zero if there are any. A group of checks that stopped half-way counts as a difference, since
nobody knows what it would have found.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"
#: | `check` | what the daemon does | what Tidegate does | why |
_ROW = re.compile(r"^\| `([\w-]+)` \| (.*) \|$", re.MULTILINE)


def explained(page: str) -> list[tuple[str, list[str]]]:
    """(check, the other columns) of each row about the probe, in the page's order."""
    _, _, text = page.partition("\n## Differences on the wire\n")
    text = text.partition("\n### What the probe does not ask\n")[0]
    return [(name, re.split(r"(?<!\\) \| ", rest)) for name, rest in _ROW.findall(text)]


def compare(page: str, run: list[dict[str, Any]]) -> list[str]:
    """What does not fit together, in a person's words. Empty when all does."""
    rows = {name for name, _ in explained(page)}
    differing = {str(check["id"]) for check in run if not check["ok"]}
    asked = {str(check["id"]) for check in run}
    return [
        *(f"{name}: differs, and no row says why" for name in sorted(differing - rows)),
        *(f"{name}: has a row, but is as the daemon" for name in sorted(rows & asked - differing)),
        *(f"{name}: has a row, but was not asked" for name in sorted(rows - asked)),
    ]


def main() -> int:
    """Compare the run that is named on the command line."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    run = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = compare(PAGE.read_text(encoding="utf-8"), run)
    print("\n".join(found) or f"{len(run)} checks; every difference has its row")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
