"""Where this process is on its way to serving, and its one :class:`Drain`.

    NEW ──third-party patches──► PATCHED ──final guard──► SERVING

``tidegate.app:app`` composes itself in PATCHED and answers in SERVING only, so that a server that
nobody patched (``flask run``, waitress, a bare pywsgi) gets one line instead of half a runtime.
"""

from __future__ import annotations

import enum

from tidegate.errors import PatchRefused
from tidegate.runtime import patches
from tidegate.runtime.drain import Drain
from tidegate.runtime.heap import give_back_big_blocks


class Stage(enum.Enum):
    """See the module's picture."""

    NEW = "new"
    PATCHED = "patched"
    SERVING = "serving"


_STAGE = {"now": Stage.NEW}
DRAIN = Drain()


def stage() -> Stage:
    """Where this process is."""
    return _STAGE["now"]


def patch(command: str) -> None:
    """Apply the third-party patches and enter PATCHED. Called by each role before its imports."""
    # First: what the imports below allocate is already under it.
    give_back_big_blocks()
    patches.apply_third_party_patches(command)
    _STAGE["now"] = Stage.PATCHED


def serve(command: str) -> None:
    """The last look before serving: PatchRefused unless everything is patched and was in time."""
    patches.require_patched(command)
    if stage() is Stage.NEW or not (patches.grpc_patched() and patches.psycopg2_patched()):
        raise PatchRefused(f"gRPC or psycopg2 do not wait through gevent: start with `{command}`")
    require_nothing_early(command)
    _STAGE["now"] = Stage.SERVING


def require_nothing_early(command: str) -> None:
    """PatchRefused naming what was bound to the unpatched library by an import too early."""
    early = patches.bound_originals()
    if early:
        shown = ", ".join(early[:5]) + (", ..." if len(early) > 5 else "")
        raise PatchRefused(
            f"imported before gevent's patch, would block: {shown}: import it later, "
            f"and start with `{command}`"
        )
