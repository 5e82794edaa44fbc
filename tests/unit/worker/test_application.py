"""The worker's application: light to import, complete in its configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import signals

from tidegate.jobs import RUN_JOB
from tidegate.settings import Settings
from tidegate.worker import CLEAN, COLLECT, RECONCILE, RESUME, build_celery

BUILD = """
import os, sys
from tidegate.settings import Settings
from tidegate.worker import build_celery
app = build_celery(Settings.load(os.environ))
app.finalize()
kinds = {os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
         for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
print("sockets" if "socket" in kinds else "none", os.listdir(os.environ["TIDEGATE_HOME"]))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({"TIDEGATE_HOME": str(tmp_path), "CELERY_WORKER_AMOUNT": "7"})


@pytest.fixture(autouse=True)
def no_handlers_left():
    """An application connects itself to Celery's signals, which are global."""
    used = (signals.worker_init, signals.worker_ready, signals.worker_shutting_down)
    before = [list(signal.receivers) for signal in used]
    yield
    for signal, receivers in zip(used, before, strict=True):
        signal.receivers[:] = receivers


@pytest.mark.blocks_hub("starts a process")
def test_building_the_application_opens_no_file_and_no_socket(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        env={**os.environ, "TIDEGATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "none []"


@pytest.mark.blocks_hub("starts a process")
def test_beat_loads_nothing_that_only_tasks_work_with(tmp_path: Path) -> None:
    """Beat builds the same application; with the installs room it would be 11 MiB larger."""
    rooms = "[one for one in ('installs', 'calls', 'packages') if 'tidegate.' + one in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"{BUILD}\nprint({rooms})"],
        env={**os.environ, "TIDEGATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_worker_loads_what_tasks_work_with_before_it_takes_one(settings: Settings) -> None:
    build_celery(settings)
    before = len(signals.worker_ready.receivers), len(signals.worker_shutting_down.receivers)
    signals.worker_init.send(None)
    after = len(signals.worker_ready.receivers), len(signals.worker_shutting_down.receivers)
    assert after == (before[0] + 1, before[1] + 1)


def test_jobs_are_acknowledged_late_and_leave_no_result(settings: Settings) -> None:
    conf = build_celery(settings).conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.task_ignore_result
    assert not conf.worker_send_task_events
    assert conf.worker_concurrency == 7
    assert conf.accept_content == ["json"]
    assert {queue.name for queue in conf.task_queues} == {"installs", "upkeep"}


def test_the_schedule_names_tasks_that_exist(settings: Settings) -> None:
    app = build_celery(settings)
    app.finalize()
    assert {RUN_JOB, RESUME, CLEAN, COLLECT, RECONCILE} <= set(app.tasks)
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled == {RESUME, CLEAN, COLLECT, RECONCILE}
    for entry in app.conf.beat_schedule.values():
        assert entry["options"]["expires"] == entry["schedule"]
    assert app.conf.beat_schedule[RESUME]["schedule"] <= 10
