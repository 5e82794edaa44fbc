"""``tidegate beat``."""

from __future__ import annotations

from tidegate.cli.roles import role_command

command = role_command("beat", "Send the schedule: Celery beat, exactly one.")
