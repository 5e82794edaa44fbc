"""What Gunicorn is told and what is refused in it. ``tidegate.gunicorn_conf`` is this, by name.

    master  conf import ── on_starting: worker class, --preload, port, packages
    worker  fork ── gevent patches ── event: third-party patches ── import tidegate.app
                 ── post_worker_init: the final look, the fingerprint, the drain's watcher

Refusals in the master end it with 78; in a worker with 3, the one code on which Gunicorn stops
instead of starting the worker again (any other is a respawn loop). Nothing here may import what
the patch has to reach first.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

from gevent import events

from tidegate.errors import PatchRefused
from tidegate.runtime import boot, fingerprint, launcher
from tidegate.runtime.fair_reading import read_in_turns
from tidegate.runtime.home import prepare_home
from tidegate.runtime.keepalive import keep_alive
from tidegate.runtime.limits import OWN_FILES, most_connections, raise_open_files
from tidegate.settings import Settings
from tidegate.telemetry.snapshots import FOLDER, forget_the_gone

COMMAND = "tidegate api"
#: Gunicorn's WORKER_BOOT_ERROR: halt the server.
HALT = 3
#: Streams in development get this long when the source changes: an open one delays the reload.
RELOAD_GRACE = 1.0
# From the worker's notice of SIGTERM (its loop turns once a second) to its last look at its pool.
_LOOP = 2


def settings_or_exit() -> Settings:
    """The settings for the configuration; a refusal ends the master before it forks."""
    with launcher.refusals_end_the_process():
        # Before Gunicorn loads the worker class, and hides what is missing in its text.
        launcher.require_installed("api")
        settings = prepare_home(os.environ)
        raise_open_files(
            settings.server_worker_connections + OWN_FILES, "SERVER_WORKER_CONNECTIONS"
        )
        return settings
    raise AssertionError("unreachable")


def address(settings: Settings) -> str:
    """``bind`` in Gunicorn's spelling."""
    host = f"[{settings.server_host}]" if ":" in settings.server_host else settings.server_host
    return f"{host}:{settings.server_port}"


def connections(settings: Settings) -> int:
    """``worker_connections``: more than runs, since a run may lead to further requests."""
    return most_connections(settings)


def graceful_timeout(settings: Settings) -> int:
    """Gunicorn's limit: the streams' grace and the turns of its own loop."""
    return math.ceil(settings.tidegate_grace) + _LOOP


def watch_for_the_patch() -> None:
    """Apply the third-party patches the moment that gevent patched the builtin modules."""
    if _patched not in events.subscribers:
        events.subscribers.append(_patched)


def refuse_in_master(server: Any, settings: Settings) -> None:
    """Static facts, before the first fork. Hook ``on_starting``."""
    share_log(server.log, settings)
    with launcher.refusals_end_the_process():
        _require_gevent_worker(server.cfg)
        _require_no_preload(server.cfg)
        if not (os.environ.get("GUNICORN_FD") or os.environ.get("LISTEN_FDS")):
            _require_free_port(server.cfg)
    # What follows is one start of api, for metrics: workers that it replaces stay counted.
    forget_the_gone(settings.home.run / FOLDER)
    if server.cfg.reload:
        server.cfg.set("graceful_timeout", math.ceil(RELOAD_GRACE) + 1)


def boot_worker(worker: Any, settings: Settings) -> None:
    """The final look, the fingerprint, the watcher. Hook ``post_worker_init``."""
    with launcher.refusals_end_the_process(HALT):
        boot.serve(COMMAND)
    fingerprint.report(
        "api",
        runner="gunicorn",
        pool=type(worker).__name__,
        workers=worker.cfg.workers,
        reload=bool(worker.cfg.reload),
    )
    # On the listener: what it accepts has them without a call per connection.
    for listener in worker.sockets:
        keep_alive(listener, settings.tidegate_client_silence)
    # Here, not above: nothing may be imported before the patch reached it.
    from gunicorn.http.unreader import SocketUnreader

    read_in_turns(SocketUnreader)
    grace = RELOAD_GRACE if worker.cfg.reload else settings.tidegate_grace
    _spawn_watcher(worker, min(grace, settings.tidegate_grace))


def interrupt_worker(worker: Any) -> None:
    """Hook ``worker_int``: SIGINT and SIGQUIT leave no time, streams get their last word now.

    Gunicorn's reloader comes through here as well: it leaves time, and the watcher wakes up.
    """
    if threading.current_thread() is not worker.reloader:
        boot.DRAIN.begin(0.0)


def _patched(event: object) -> None:
    if isinstance(event, events.GeventDidPatchBuiltinModulesEvent):
        with launcher.refusals_end_the_process(HALT):
            boot.patch(COMMAND)


def share_log(gunicorn_log: Any, settings: Settings) -> None:
    """What Gunicorn says goes where ours goes, in the same shape; its level stays its own.

    Hooks ``on_starting`` and ``on_reload``, which has made Gunicorn's own handlers again.
    """
    from tidegate.telemetry.logs import configure_logging

    configure_logging(settings)
    for handler in list(gunicorn_log.error_log.handlers):
        gunicorn_log.error_log.removeHandler(handler)
    # To the root, where our handlers are: two formats in one stream are read by nobody.
    gunicorn_log.error_log.propagate = True


def _require_gevent_worker(config: Any) -> None:
    from gunicorn.workers.ggevent import GeventWorker

    if not issubclass(config.worker_class, GeventWorker):
        raise PatchRefused(
            f"worker class {config.worker_class_str!r} does not run on gevent: drop -k, "
            f"--threads and SERVER_WORKER_CLASS, start with `{COMMAND}`"
        )


def _require_no_preload(config: Any) -> None:
    if config.preload_app:
        raise PatchRefused(
            "--preload imports the application before gevent's patch: drop it, "
            f"start with `{COMMAND}`"
        )


def _require_free_port(config: Any) -> None:
    for bound in config.address:
        if isinstance(bound, tuple):
            launcher.require_free_port(bound[0], bound[1])


def _spawn_watcher(worker: Any, grace: float) -> None:
    import gevent

    from tidegate.runtime.idle import IdleConnections

    idle = IdleConnections(worker.cfg.keepalive)
    worker.timeout_ctx = idle.wait
    gevent.spawn(_watch, worker, grace, idle.close)


def _watch(worker: Any, grace: float, close_idle: Callable[[], None]) -> None:
    """Begin draining as soon as the worker is told to stop, by whatever way.

    Gunicorn writes to PIPE on each signal and on reload; ``max_requests`` only clears ``alive``,
    hence the time-out. Without this, SIGTERM would cut each stream without a word.
    """
    import gevent
    from gevent.socket import wait_read

    while worker.alive:
        try:
            wait_read(worker.PIPE[0], timeout=1.0, timeout_exc=TimeoutError())
            os.read(worker.PIPE[0], 4096)
        except (TimeoutError, BlockingIOError):
            continue
    boot.DRAIN.begin(grace)
    while True:  # until the worker ends: streams that end now leave idle connections
        close_idle()
        gevent.sleep(0.2)
