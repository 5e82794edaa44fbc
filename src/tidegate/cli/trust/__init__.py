"""``tidegate trust``: whose signatures on packages count, beside the official one."""

from __future__ import annotations

from tidegate.cli.program import LazyGroup

__all__ = ["command"]

command = LazyGroup(
    name="trust",
    package="tidegate.cli.trust",
    modules={"add": "add", "list": "list", "remove": "remove"},
    help="Keys whose signatures on packages count. A change needs no restart.",
)
