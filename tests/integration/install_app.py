"""The real worker application with a host that does what files say (test_install_worker.py).

``<folder>/hold-<step>`` holds every installation at that step; ``<folder>/operations`` records.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate.deadline import Deadline
from tidegate.settings import Settings
from tidegate.worker import build_celery

FOLDER = Path(os.environ["INSTALL_APP_FOLDER"])


class FileHost:
    """Follows ``tidegate.installs.HostControl``."""

    def run(self, op: str, params: dict[str, Any], deadline: Deadline) -> Iterator[dict[str, Any]]:
        """An install goes through its steps; anything else is done at once."""
        if op != "changed":
            with (FOLDER / "operations").open("a", encoding="utf-8") as file:
                file.write(f"{op} {params['identifier']}\n")
        for step in ("unpack", "environment", "start") if op == "install" else ():
            yield {"step": step, "message": f"{step} is at work"}
            while (FOLDER / f"hold-{step}").exists():
                time.sleep(0.02)


app = build_celery(Settings.load(os.environ), lambda _settings: FileHost())
