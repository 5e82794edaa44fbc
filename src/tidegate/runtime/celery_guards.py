"""What is refused in Celery, on facts. Connected by ``tidegate.celery_entrypoint``.

    worker  celery -P gevent patches ── entry import ── worker_init: application, real pool, patches
    beat    the launcher patches (Celery never does) ── entry import ── beat_init: patches

argv says nothing: ``-Pgevent``, ``worker_pool``, ``-P custom`` and ``worker_main`` all give a
gevent pool on an unpatched library, which takes tasks and never runs one. A refusal is SystemExit
from the signal's handler, the only exception that Celery lets through; no broker was contacted.
Other commands (``inspect``, ``control``) are not judged: they run unpatched on purpose.
"""

from __future__ import annotations

import atexit
import os
import warnings
from typing import Any

from celery import signals
from celery.concurrency import get_implementation
from celery.concurrency.gevent import TaskPool
from celery.exceptions import SecurityWarning

from tidegate.errors import PatchRefused, StartRefused
from tidegate.runtime import boot, fingerprint, launcher, patches
from tidegate.runtime.home import prepare_home
from tidegate.settings import Home, Settings

COMMANDS = {"worker": "tidegate worker", "beat": "tidegate beat"}
_EITHER = "tidegate worker` or `tidegate beat"
_ACCEPTED: list[tuple[Any, Settings]] = []


def begin() -> Settings:
    """Patch what third parties need, then read the settings. First act of the Celery entry.

    In a process that gevent did not patch nothing is changed: whether that is wrong is known only
    when it turns out to be a worker or beat.
    """
    # About pickled messages run as root: ours are JSON, and a container's user is often root.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    with launcher.refusals_end_the_process():
        # Judged later, in worker_init: `celery inspect` comes through here as well, unpatched.
        if not patches.missing_patches():
            patches.rebind_celery_imports()
            boot.patch(_EITHER)
            boot.require_nothing_early(_EITHER)
        return prepare_home(os.environ)
    raise AssertionError("unreachable")


def accept(application: Any, settings: Settings) -> None:
    """Make ``application`` the only one that worker and beat run, and connect the guards."""
    _ACCEPTED[:] = [(application, settings)]
    connect()


def connect() -> None:
    """Connect the guards, once. Whoever builds a Celery application may call it."""
    signals.worker_init.connect(_worker_init, weak=False, dispatch_uid="tidegate.worker_init")
    signals.worker_ready.connect(_worker_ready, weak=False, dispatch_uid="tidegate.worker_ready")
    signals.beat_init.connect(_beat_init, weak=False, dispatch_uid="tidegate.beat_init")


def _worker_init(sender: Any, **_: Any) -> None:
    with launcher.refusals_end_the_process():
        _require_accepted(sender.app, "worker")
        _require_gevent_pool(sender.pool_cls)
        boot.serve(COMMANDS["worker"])
    fingerprint.report(
        "worker", runner="celery worker", pool="gevent", workers=int(sender.concurrency)
    )


def _worker_ready(**_: Any) -> None:
    _keep("worker", _ACCEPTED[0][1].home)


def _beat_init(sender: Any, **_: Any) -> None:
    with launcher.refusals_end_the_process():
        _require_accepted(sender.app, "beat")
        boot.serve(COMMANDS["beat"])
    fingerprint.report("beat", runner="celery beat", pool="none", workers=1)
    _keep("beat", _ACCEPTED[0][1].home)


def _keep(role: str, home: Home) -> None:
    fingerprint.keep(role, home)
    atexit.register(fingerprint.forget, role, home)


def _require_accepted(application: Any, role: str) -> None:
    if not _ACCEPTED or application is not _ACCEPTED[0][0]:
        raise StartRefused(
            f"this is not Tidegate's Celery application: start with `{COMMANDS[role]}` "
            f"(celery -A {launcher.CELERY_APP})"
        )


def _require_gevent_pool(pool: Any) -> None:
    # By what it is and not by its name: `-P custom` may name any class.
    real = get_implementation(pool)
    if not (isinstance(real, type) and issubclass(real, TaskPool)):
        raise PatchRefused(
            f"worker pool {getattr(real, '__module__', real)!r} does not run on gevent: "
            f"drop -P and worker_pool, start with `{COMMANDS['worker']}`"
        )
