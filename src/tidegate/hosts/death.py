"""How a plugin's process ended: what its calls and people are told of it.

Three know a part of it: the kernel an exit code or signal, the host why it ended the process (if it
did), and the plugin itself what it wrote to standard error.
"""

from __future__ import annotations

import signal
from typing import Any, final

from tidegate.environments import Exit
from tidegate.errors import PluginDied, PluginStartFailed
from tidegate.hosts.processes import oom_kills


@final
class Death:
    """One process's, from its start on. Made and kept by its instance."""

    def __init__(self) -> None:
        #: Whether it was told to end in good order: then it did not die.
        self.asked = False
        self._reason = ""
        self._limit: dict[str, Any] = {}
        # The kernel counts for the whole machine, since its boot: only what is new may be ours.
        self._ooms_before = oom_kills()

    def because(self, why: str) -> None:
        """The host ends it for that. The first reason counts: others follow from it."""
        self._reason = self._reason or why

    def over_limit(self, setting: str, allowed: int, used: int) -> str:
        """It used more than ``setting`` admits. Returns the limit's kind; see errors.PluginDied."""
        kind = "plugin_oom" if setting == "TIDEGATE_PLUGIN_MEMORY" else "plugin_limit"
        self._limit = {"limit": kind, "setting": setting, "allowed": allowed, "used": used}
        self.because(f"{kind}: it used {used}, over its limit of {allowed} ({setting})")
        return kind

    @property
    def condemned(self) -> bool:
        """Whether it was ended for what it used."""
        return bool(self._limit)

    def how(self, ended: Exit) -> str:
        """In a few words."""
        return f"{self._reason}, {ended}" if self._reason else str(ended)

    def error(self, ended: Exit, stderr: str, group_ooms: int) -> PluginDied:
        """For the calls that it was serving. ``group_ooms``: kills in its cgroup, if it has one."""
        said = f": {stderr}" if stderr else ""
        details = self._details(ended, stderr, group_ooms)
        return PluginDied(f"the plugin's process ended ({self.how(ended)}){said}", **details)

    def start_error(self, ended: Exit, stderr: str, group_ooms: int) -> PluginStartFailed:
        """For those who waited until it is ready."""
        said = stderr or "it said nothing"
        details = self._details(ended, stderr, group_ooms)
        return PluginStartFailed(f"plugin failed to start: {self.how(ended)}: {said}", **details)

    def _details(self, ended: Exit, stderr: str, group_ooms: int) -> dict[str, Any]:
        return {
            "exit_code": ended.code,
            "signal": ended.signal,
            "stderr": stderr,
            "oom": self._ran_out_of_memory(ended, stderr, group_ooms),
            **self._limit,
        }

    def _ran_out_of_memory(self, ended: Exit, stderr: str, group_ooms: int) -> bool:
        if self._limit:
            return bool(self._limit["limit"] == "plugin_oom")
        # At its own rlimit Python raises; at the cgroup's the kernel kills, and counts it there.
        if "MemoryError" in stderr or group_ooms:
            return True
        # Nobody of ours killed it, and the kernel killed for memory meanwhile.
        killed = ended.signal == signal.SIGKILL and not self._reason and not self.asked
        return killed and oom_kills() > self._ooms_before
