"""``tidegate plugin``: packages and installed plugins."""

from __future__ import annotations

from tidegate.cli.program import LazyGroup

__all__ = ["command"]

command = LazyGroup(
    name="plugin",
    package="tidegate.cli.plugin",
    modules={
        "package": "package",
        "install": "install",
        "list": "list",
        "status": "status",
        "upgrade": "upgrade",
        "restart": "restart",
        "uninstall": "uninstall",
    },
    help="Packages and installed plugins.",
)
