"""``tidegate signature``: keys and signatures of packages."""

from __future__ import annotations

from tidegate.cli.program import LazyGroup

__all__ = ["command"]

command = LazyGroup(
    name="signature",
    package="tidegate.cli.signature",
    modules={"generate": "generate", "sign": "sign", "verify": "verify"},
    help="Keys and signatures of packages.",
)
