"""``tidegate worker``."""

from __future__ import annotations

from tidegate.cli.roles import role_command

command = role_command("worker", "Do jobs (installs, clean-up): Celery with a gevent pool.")
