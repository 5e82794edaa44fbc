"""``tidegate credential``: credentials for back-calls that Tidegate answers itself."""

from __future__ import annotations

from tidegate.cli.program import LazyGroup

__all__ = ["command"]

command = LazyGroup(
    name="credential",
    package="tidegate.cli.credential",
    modules={"set": "set", "list": "list", "remove": "remove"},
    help="Credentials for back-calls that Tidegate answers itself (TIDEGATE_BACKCALLS=self).",
)
