"""A cgroup per plugin instance, below a folder that was delegated to the host (cgroup v2).

Where there is one, limits are the kernel's own: memory, processes, and a rate of CPU, which
nothing else limits. What the plugin started cannot leave the group, and ends with it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Final, final

from tidegate.settings import Settings

_PERIOD: Final = 100_000
_WANTED: Final = ("memory", "pids", "cpu")
_numbers = itertools.count(1)


@final
class Cgroup:
    """One group. Made before the process is started, which joins it by itself; then removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, root: Path, name: str, settings: Settings) -> Cgroup:
        """A new group below ``root`` with the plugin's limits. OSError when it cannot be made."""
        # Numbered: that of the instance before may still hold a process that dies slowly.
        group = cls(root / f"{name.replace('/', '-')}-{os.getpid()}-{next(_numbers)}")
        group.folder.mkdir()
        try:
            if settings.tidegate_plugin_memory:
                group._set("memory.max", settings.tidegate_plugin_memory)
                with contextlib.suppress(OSError):
                    # Without it a plugin at its limit swaps, and slows down the whole machine.
                    # Absent where the kernel has no swap accounting.
                    group._set("memory.swap.max", 0)
            if settings.tidegate_plugin_processes:
                group._set("pids.max", settings.tidegate_plugin_processes)
            if settings.tidegate_plugin_cpus:
                # The kernel takes no quota below a millisecond.
                quota = int(settings.tidegate_plugin_cpus * _PERIOD)
                group._set("cpu.max", f"{max(1000, quota)} {_PERIOD}")
        except OSError:
            group.remove()
            raise
        return group

    @property
    def oom_kills(self) -> int:
        """Processes of the group that the kernel killed at its memory limit."""
        try:
            lines = (self.folder / "memory.events").read_text().splitlines()
        except OSError:
            return 0
        # Read when it is asked, not watched: it is asked once, at a death.
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def kill(self) -> None:
        """End everything in it at once."""
        with contextlib.suppress(OSError):
            self._set("cgroup.kill", 1)

    def remove(self) -> None:
        """Give the group back. Nothing when something still runs in it."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _set(self, file: str, value: object) -> None:
        (self.folder / file).write_text(str(value))


def why_not(root: Path) -> str:
    """What is wrong with a folder that is said to be delegated; empty when it will do.

    Switches the controllers on for the groups below it where they are not.
    """
    try:
        there = (root / "cgroup.controllers").read_text().split()
        missing = [one for one in _WANTED if one not in there]
        if missing:
            return f"{root} has no controller {', '.join(missing)}"
        control = root / "cgroup.subtree_control"
        absent = [one for one in _WANTED if one not in control.read_text().split()]
        if absent:
            control.write_text(" ".join(f"+{one}" for one in absent))
        probe = root / f"probe-{os.getpid()}"
        # Files may be writable and the folder not: by delegation of the one, or a read-only mount.
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"{root}: {error.strerror}"
    return ""
