"""Gunicorn's configuration: ``gunicorn -c python:tidegate.gunicorn_conf tidegate.app:app``.

Passed explicitly, so that the working directory does not matter. Imports ``runtime`` only, since
it is loaded in the master, before the patch; what is decided here stands in
``runtime/gunicorn_guards.py`` with its reasons.
"""

from __future__ import annotations

import os
from typing import Any

from tidegate.runtime import gunicorn_guards as _guards

_settings = _guards.settings_or_exit()
_guards.watch_for_the_patch()

bind = _guards.address(_settings)
workers = _settings.server_worker_amount
worker_class = _settings.server_worker_class
worker_connections = _guards.connections(_settings)
timeout = _settings.gunicorn_timeout
graceful_timeout = _guards.graceful_timeout(_settings)
reload = _settings.tidegate_reload
# Dify's client keeps its connections for 65 s; whoever closes first must not be us.
keepalive = 75
http_parser = "auto"
# One for all instances of a user by default (~/.gunicorn/gunicorn.ctl).
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder
loglevel = "debug" if _settings.debug else "info"


def on_starting(server: Any) -> None:
    """In the master, before the first fork: refuse what can be known already."""
    _guards.refuse_in_master(server, _settings)


def on_reload(server: Any) -> None:
    """In the master, on SIGHUP: Gunicorn has read its configuration anew."""
    _guards.share_log(server.log, _settings)


def post_worker_init(worker: Any) -> None:
    """In the worker, before it accepts: refuse what turned out wrong, report, watch."""
    _guards.boot_worker(worker, _settings)


def worker_int(worker: Any) -> None:
    """In the worker, on SIGINT, SIGQUIT and reload."""
    _guards.interrupt_worker(worker)
