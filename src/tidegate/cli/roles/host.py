"""``tidegate host``."""

from __future__ import annotations

from tidegate.cli.roles import role_command

command = role_command("host", "Own the plugin processes of this machine.")
