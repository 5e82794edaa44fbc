"""What stands around the build of an environment: asked of the host by each tool that is run.

A package that comes as source is built by code of its own, so a build is kept apart as a plugin
is. How is the affair of ``hosts.isolation``, which this room does not know: it hands in a
function (:meth:`Environments.confine`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

#: Users of their own. INSTALLER runs uv with wheels, COMPILER compiles what was installed: both
#: write what all environments are made from, and run nothing foreign. BUILDER does.
INSTALLER: Final = "installer"
COMPILER: Final = "compiler"
BUILDER: Final = "builder"


@final
@dataclass(frozen=True, slots=True)
class Walls:
    """Limits and view for ``spawn``, and where the folder for temporary files is behind them."""

    limits: Mapping[str, int] = field(default_factory=dict)
    view: tuple[str, ...] = ()
    temporary: str = ""


#: Walls around a tool that needs these paths (``r`` or ``w``) and a folder for temporary files,
#: run by that user; what it may write becomes its own. None where tools run as the host does.
#: Called in a greenlet: it may wait. OSError.
type Confine = Callable[[Mapping[Path, str], Path, str], Walls]


def give(folder: Path, uid: int) -> None:
    """Make ``folder`` and all in it ``uid``'s own, unless it is already. OSError when not ours.

    Whoever owned it may still be at work in it and swap a folder for a link to somebody else's:
    so the tree is walked by descriptors, and links themselves are given, not what they point to.
    """
    if folder.lstat().st_uid == uid:
        return
    for _, folders, files, at in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=at, follow_symlinks=False)
    os.chown(folder, uid, uid, follow_symlinks=False)
