"""A user id for each plugin at rung 2 and 3, and for the builds of environments."""

from __future__ import annotations

import json
from typing import final

from tidegate.errors import PluginStartFailed
from tidegate.runtime.home import write_whole
from tidegate.settings import Settings


@final
class Uids:
    """A user id for each plugin, the same at every start. Kept in the working path."""

    def __init__(self, settings: Settings) -> None:
        self._text = settings.tidegate_plugin_uids
        self._path = settings.working_path / ".uids.json"

    @property
    def range(self) -> tuple[int, int]:
        """First and last of the range; ValueError when the setting is none."""
        first, _, last = self._text.partition("-")
        if first.isdigit() and last.isdigit() and 0 < int(first) <= int(last):
            return int(first), int(last)
        raise ValueError(f"TIDEGATE_PLUGIN_UIDS takes first-last, not {self._text!r}")

    def of(self, plugin_id: str) -> int:
        """The plugin's own, or a tool's, whose name has no slash.

        PluginStartFailed when none is left.
        """
        known = self._known()
        if plugin_id not in known:
            first, last = self.range
            taken = set(known.values())
            free = next((uid for uid in range(first, last + 1) if uid not in taken), None)
            if free is None:
                raise PluginStartFailed(f"no user id is left for it (TIDEGATE_PLUGIN_UIDS {last})")
            known[plugin_id] = free
            write_whole(self._path, json.dumps(known).encode())
        return known[plugin_id]

    def _known(self) -> dict[str, int]:
        first, last = self.range
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}  # none yet, or not ours: ids are given anew, and files with them
        return {name: uid for name, uid in found.items() if first <= uid <= last}
