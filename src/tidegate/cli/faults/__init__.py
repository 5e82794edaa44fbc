"""``tidegate faults``: bad actors from outside, against any server with this API."""

from tidegate.cli.faults.command import command

__all__ = ["command"]
