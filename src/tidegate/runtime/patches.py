"""gevent's patch, seen from our side: is it there, is it whole, and what third parties need.

Nobody here patches the standard library: Gunicorn does it for api, Celery for worker, the
launcher (``python -m gevent.monkey``) for beat and the first statement of ``host_entrypoint`` for
host. This module checks that it happened and adds the two patches that gevent cannot know of:

    grpc.experimental.gevent.init_gevent()   gRPC's core runs on its own threads otherwise
    psycogreen.gevent.patch_psycopg()        libpq would block the hub

All questions are answered from facts (what is patched), never from argv or a flag of ours, so a
second import of this file under another name changes nothing. docs/runtime.md tells the story.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from tidegate.errors import PatchRefused

#: What a process needs patched to be called patched. gevent patches more.
REQUIRED = (
    "os", "queue", "select", "signal", "socket", "ssl", "subprocess", "threading", "time",
)  # fmt: skip

# Modules that keep originals on purpose: gevent itself and the debugger.
_KEEPERS = ("gevent", "greenlet", "debugpy", "pydevd")
# Loaded in the middle of `celery -P gevent`'s own patch (see rebind_celery_imports).
_CELERY_ROOTS = ("amqp", "kombu")
_LOCK = threading.Lock()


def patched_modules() -> list[str]:
    """Names of the standard modules that gevent replaced in this process, sorted."""
    state = sys.modules.get("gevent.monkey")
    # gevent's own record: flags of ours would say what was meant, not what was done.
    saved: dict[str, Any] = getattr(state, "saved", {})
    return sorted(name for name in saved if not name.startswith("_"))


def missing_patches() -> list[str]:
    """Those of :data:`REQUIRED` that are not patched."""
    there = set(patched_modules())
    return [name for name in REQUIRED if name not in there]


def require_patched(command: str = "tidegate api|worker|beat|host") -> None:
    """PatchRefused unless the standard library is patched as a whole; ``command`` is the remedy."""
    missing = missing_patches()
    if missing:
        raise PatchRefused(
            f"gevent has not patched {', '.join(missing)} here: start with `{command}`"
        )


def grpc_patched() -> bool:
    """Whether gRPC runs on gevent; False too when it was never imported."""
    core = sys.modules.get("grpc._cython.cygrpc")
    return bool(getattr(core, "g_gevent_activated", False))


def psycopg2_patched() -> bool:
    """Whether psycopg2 waits through gevent; False too when it was never imported."""
    extensions = sys.modules.get("psycopg2.extensions")
    return extensions is not None and extensions.get_wait_callback() is not None


def apply_third_party_patches(command: str = "tidegate api|worker|beat|host") -> None:
    """Let gRPC and psycopg2 wait through gevent. Called once per role, before its first import.

    Idempotent and safe from any greenlet or thread; all or nothing: PatchRefused, and nothing
    changed, when the standard library is not patched or one of the packages is missing. Prints
    one flushed line each, since logging does not exist yet.
    """
    require_patched(command)
    steps = _third_party()
    with _LOCK:
        for name, is_done, apply in steps:
            if not is_done():
                apply()
                print(f"tidegate: {name} waits through gevent", flush=True)


def _third_party() -> list[tuple[str, Callable[[], bool], Callable[[], None]]]:
    try:
        from grpc.experimental.gevent import init_gevent
        from psycogreen.gevent import patch_psycopg
    except ImportError as error:
        raise PatchRefused(f"{error}: run `make` (or reinstall tidegate) to bring it") from error
    return [
        ("gRPC", grpc_patched, init_gevent),
        ("psycopg2", psycopg2_patched, patch_psycopg),
    ]


def bound_originals() -> list[str]:
    """Names bound to the unpatched library, as ``module.name``: what was imported too early.

    Compares by identity: a module that ran ``from time import sleep`` before the patch still
    blocks the hub, whatever the flags say. Only public names, since private ones differ between
    Python versions. Costs 5 to 10 ms; called once per role when all its imports are done.
    """
    return [f"{module.__name__}.{name}" for module, name, _, _ in _originals() if module.__name__]


def rebind_celery_imports() -> None:
    """Give kombu and amqp the patched names. Called by the Celery entry, before anything else.

    ``celery -P gevent`` patches before its imports, but gevent walks over all objects to find
    locks, which wakes Celery's lazy module, which imports kombu: half way through the patch.
    ``kombu.utils.functional.sleep`` would block the hub in every reconnect.
    """
    # A list first: setting a name changes the tables that are walked over.
    for module, name, owner, attribute in list(_originals()):
        if module.__name__.partition(".")[0] in _CELERY_ROOTS:
            setattr(module, name, getattr(sys.modules[owner], attribute))


def _originals() -> Iterator[tuple[ModuleType, str, str, str]]:
    known = _known_originals()
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and _is_checked(name):
            for key, value in list(vars(module).items()):
                found = known.get(id(value))
                if found is not None and not key.startswith("_"):
                    yield module, key, *found


def _known_originals() -> dict[int, tuple[str, str]]:
    saved: dict[str, dict[str, Any]] = getattr(sys.modules.get("gevent.monkey"), "saved", {})
    return {
        id(original): (module, name)
        for module, names in saved.items()
        if not module.startswith("_gevent")
        for name, original in names.items()
        if callable(original)
    }


def _is_checked(name: str) -> bool:
    root = name.partition(".")[0]
    if root in sys.stdlib_module_names or root == "_distutils_hack":
        return False
    return not root.lstrip("_").startswith(_KEEPERS)
