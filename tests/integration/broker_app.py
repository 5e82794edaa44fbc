"""A small Celery application on our broker: what the workers of test_broker.py run.

``BROKER_APP_VISIBILITY`` shortens what Redis waits for before it gives a dead worker's back.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from tidegate.jobs import celery_settings
from tidegate.settings import Settings

app = Celery("broker-app")
app.conf.update(celery_settings(Settings.load(os.environ)))
if "BROKER_APP_VISIBILITY" in os.environ:
    seconds = float(os.environ["BROKER_APP_VISIBILITY"])
    app.conf.broker_transport_options["visibility_timeout"] = seconds


@app.task(name="note")
def note(path: str, line: str) -> None:
    """Say that it ran."""
    write(path, line)


@app.task(name="hold")
def hold(path: str, line: str) -> None:
    """Say that it began, wait until the test lets go, say that it ended."""
    write(path, f"begin {line}")
    while not Path(f"{path}.go").exists():
        time.sleep(0.02)
    write(path, f"end {line}")


def write(path: str, line: str) -> None:
    """One whole line, whoever writes beside."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
