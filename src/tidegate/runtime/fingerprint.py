"""What this process really is: one JSON line at start, the same object at run time.

``{"event": "fingerprint", "role", "runner", "pool", "workers", "patched", "grpc", "psycopg2",
"reload", "pid", "ppid"}``. Pids apart it is the same for every value of DEBUG, and ``reload`` is
all that differs between the ways to start a role. worker and beat, which nobody can ask over
HTTP, also keep it in ``run/<role>.json`` while they run.
"""

from __future__ import annotations

import json
import os
from typing import Any

from tidegate.runtime import patches
from tidegate.runtime.home import write_whole
from tidegate.settings import Home

_REPORTED: dict[str, dict[str, Any]] = {}


def report(role: str, *, runner: str, pool: str, workers: int, reload: bool = False) -> None:
    """Print the line and remember it for :func:`fingerprint`. Called once by the role's boot."""
    _REPORTED[role] = {
        "role": role,
        "runner": runner,
        "pool": pool,
        "workers": workers,
        "patched": patches.patched_modules(),
        "grpc": patches.grpc_patched(),
        "psycopg2": patches.psycopg2_patched(),
        "reload": reload,
        "pid": os.getpid(),
        "ppid": os.getppid(),
    }
    print(json.dumps({"event": "fingerprint", **_REPORTED[role]}), flush=True)


def fingerprint(role: str) -> dict[str, Any]:
    """The fingerprint of this process, as it was at boot; for ``/debug/runtime`` and the host.

    A process that never booted as ``role`` says so: runner and pool are empty.
    """
    # Not refused: whoever asks wants to know just that.
    if role not in _REPORTED:
        report(role, runner="", pool="", workers=0)
    return dict(_REPORTED[role])


def keep(role: str, home: Home) -> None:
    """Write ``run/<role>.json``; called when the role serves, so that its presence means ready."""
    write_whole(home.run / f"{role}.json", json.dumps(fingerprint(role)).encode(), mode=0o600)


def forget(role: str, home: Home) -> None:
    """Remove ``run/<role>.json`` if this process wrote it. Called when the role ends."""
    path = home.run / f"{role}.json"
    try:
        # After a quick restart it may be the next one's.
        if json.loads(path.read_bytes())["pid"] == os.getpid():
            path.unlink()
    except (FileNotFoundError, ValueError, KeyError):
        return
