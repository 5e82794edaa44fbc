"""The command line: ``tidegate``. One module per command.

:func:`main` hands ``api``, ``worker``, ``beat`` and ``host`` to the launcher before anything else
is imported: those roles are patched by their own runners, and what this process imported first
would miss the patch. All other commands are one-shot and run unpatched (docs/runtime.md, R29).
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_ROLES = ("api", "worker", "beat", "host")


def main() -> None:
    """The console script. Ends the process: 0, or non-zero with one line on standard error."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _ROLES and "--help" not in arguments:
        from tidegate.runtime.launcher import launch

        launch(arguments[0], arguments[1:])
    from tidegate.cli.program import run

    sys.exit(run(arguments))
