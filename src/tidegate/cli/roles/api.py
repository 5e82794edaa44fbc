"""``tidegate api``."""

from __future__ import annotations

from tidegate.cli.roles import role_command

command = role_command("api", "Serve HTTP: Gunicorn with gevent workers.")
