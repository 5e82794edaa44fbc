"""worker and beat: refused on what they are, not on what was typed (R14 to R16, R26)."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.patience import patience, wait_until
from tidegate.runtime.patches import REQUIRED

ENTRY = "tidegate.celery_entrypoint.celery"
QUIET = ("--without-gossip", "--without-mingle")
REFUSED = 78


def test_R14_the_forms_that_celery_patches_for_run(start, environ):
    for form in (("-P", "gevent"), ("--pool=gevent",), ("--pool", "gevent")):
        program = start("celery", "-A", ENTRY, "worker", *form, *QUIET)
        state = program.fingerprint()
        assert (state["role"], state["pool"]) == ("worker", "gevent")
        assert (state["grpc"], state["psycopg2"]) == (True, True)
        assert set(REQUIRED) <= set(state["patched"])
        kept = Path(environ["TIDEGATE_HOME"]) / "run/worker.json"
        wait_until(kept.exists, 10)
        assert json.loads(kept.read_text())["pid"] == program.pid
        kept.unlink()
        program.close()


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        (("celery", "-A", ENTRY, "worker", "-Pgevent"), {}, "has not patched"),
        (
            ("celery", "-A", "other_celery.same", "worker"),
            {"PROBE_WORKER_POOL": "gevent"},
            "has not patched",
        ),
        (
            ("celery", "-A", ENTRY, "worker", "-P", "custom"),
            {"CELERY_CUSTOM_WORKER_POOL": "celery.concurrency.gevent:TaskPool"},
            "has not patched",
        ),
        (
            ("python", "-c", f"from {ENTRY.rpartition('.')[0]} import celery;"
             "celery.worker_main(['worker', '-P', 'gevent'])"),
            {},
            "has not patched",
        ),
        (("celery", "-A", ENTRY, "worker", "-P", "solo"), {}, "pool 'celery.concurrency.solo'"),
        (("celery", "-A", ENTRY, "worker", "-P", "threads"), {}, "pool 'celery.concurrency.thr"),
        (("celery", "-A", ENTRY, "worker", "-P", "prefork"), {}, "pool 'celery.concurrency.pre"),
        (("celery", "-A", ENTRY, "worker"), {}, "pool 'celery.concurrency.prefork'"),
    ],
    ids=["-Pgevent", "worker_pool", "custom", "worker_main", "solo", "threads", "prefork", "none"],
)  # fmt: skip
def test_R14_every_other_form_is_refused_and_the_broker_untouched(
    start, environ, command, settings, says
):
    program = start(*command, **settings)
    assert program.wait() == REFUSED
    assert program.took_less_than(3)
    [line] = program.text.splitlines()
    assert says in line
    assert "start with `tidegate worker`" in line
    home = Path(environ["TIDEGATE_HOME"])
    assert not (home / "run/worker.json").exists()
    assert not (home / "broker.db").exists()


def test_R14_a_name_imported_before_the_patch_is_refused(start):
    program = start(
        "python", "-c",
        "import sys, early; sys.argv = ['celery', '-A', 'tidegate.celery_entrypoint.celery',"
        " 'worker', '-P', 'gevent']; from celery.__main__ import main; main()",
    )  # fmt: skip
    assert program.wait() == REFUSED
    assert program.took_less_than(3)
    assert "imported before gevent's patch, would block: early.SSLContext" in program.text


def test_the_worker_keeps_no_name_that_celerys_own_patch_left_behind(start):
    """kombu is imported half way through ``celery -P gevent``'s patch; the entry repairs that."""
    program = start("celery", "-A", ENTRY, "worker", "-P", "gevent", *QUIET)
    program.fingerprint()
    assert "would block" not in program.text


@pytest.mark.parametrize(
    ("application", "says"),
    [
        ("tidegate.app.celery", "holds no Celery application"),
        ("other_celery.other", "is not Tidegate's Celery application"),
    ],
)
def test_R15_another_application_is_refused(start, application, says):
    for command in (
        ("celery", "-A", application, "worker", "-P", "gevent"),
        ("python", "-m", "gevent.monkey", "--module", "celery", "-A", application, "beat"),
    ):
        program = start(*command)
        assert program.wait() == REFUSED
        assert program.took_less_than(3)
        [line] = [line for line in program.text.splitlines() if says in line]
        assert ENTRY in line


def test_R16_beat_is_patched_as_a_whole(start, environ):
    program = start("tidegate", "beat")
    state = program.fingerprint()
    assert (state["runner"], state["grpc"], state["psycopg2"]) == ("celery beat", True, True)
    kept = Path(environ["TIDEGATE_HOME"]) / "run/beat.json"
    assert wait_until(kept.exists, 10)
    program.kill()
    assert program.wait() == 0
    assert not kept.exists()


def test_R16_a_beat_that_nobody_patched_is_refused(start):
    program = start("celery", "-A", ENTRY, "beat")
    assert program.wait() == REFUSED
    assert program.took_less_than(3)
    [line] = [line for line in program.text.splitlines() if line.startswith("tidegate: ")]
    assert line.endswith("start with `tidegate beat`")


def test_R26_the_worker_stops_warmly(start, environ):
    program = start("celery", "-A", ENTRY, "worker", "-P", "gevent", *QUIET)
    kept = Path(environ["TIDEGATE_HOME"]) / "run/worker.json"
    wait_until(kept.exists, 10)
    began = time.monotonic()
    program.kill()
    assert program.wait() == 0
    assert time.monotonic() - began < patience(5)
    assert "Warm shutdown" in program.text
    assert not kept.exists()
