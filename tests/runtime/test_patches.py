"""The one helper for gRPC and psycopg2 (R10 to R13), and what was imported too early."""

from __future__ import annotations

import signal

from tests.runtime.processes import ROOT

PATCH = "from gevent import monkey; monkey.patch_all(); "
LINES = ["tidegate: gRPC waits through gevent", "tidegate: psycopg2 waits through gevent"]


def test_R10_one_helper_applies_the_third_party_patches():
    calls = ("init_gevent(", "patch_psycopg(", "init_grpc_gevent(")
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text()
        used = any(word in text for word in calls) or "import init_gevent" in text
        assert not used or path.name == "patches.py", path
    boot = "boot.patch("
    for user in ("runtime/gunicorn_guards.py", "runtime/celery_guards.py", "host_entrypoint.py"):
        assert boot in (ROOT / "src/tidegate" / user).read_text()


def test_R11_the_helper_patches_once_from_fifty_greenlets_and_under_a_second_name(start):
    program = start(
        "python",
        "-c",
        PATCH
        + """
import importlib.util, sys, gevent
import grpc.experimental.gevent, psycogreen.gevent
calls = []
for module, name in ((grpc.experimental.gevent, "init_gevent"),
                     (psycogreen.gevent, "patch_psycopg")):
    def counted(real=getattr(module, name), name=name):
        calls.append(name)
        real()
    setattr(module, name, counted)
from tidegate.runtime import patches
gevent.joinall([gevent.spawn(patches.apply_third_party_patches) for _ in range(50)])
spec = importlib.util.spec_from_file_location("second", patches.__file__)
second = importlib.util.module_from_spec(spec)
sys.modules["second"] = second
spec.loader.exec_module(second)
second.apply_third_party_patches()
print(sorted(calls))
""",
    )
    assert program.wait() == 0
    assert program.text.splitlines() == [*LINES, "['init_gevent', 'patch_psycopg']"]


def test_R12_the_helper_changes_nothing_in_an_unpatched_process(start):
    program = start(
        "python",
        "-c",
        """
import grpc.experimental.gevent, psycopg2.extensions
from tidegate.errors import PatchRefused
from tidegate.runtime import patches
try:
    patches.apply_third_party_patches("tidegate api")
except PatchRefused as error:
    print(error.message)
print(patches.grpc_patched(), psycopg2.extensions.get_wait_callback())
""",
    )
    assert program.wait() == 0
    message, state = program.text.splitlines()
    assert message.startswith("gevent has not patched os, queue,")
    assert message.endswith("`tidegate api`")
    assert state == "False None"


def test_R12_a_half_patched_process_is_refused_too(start):
    program = start(
        "python",
        "-c",
        """
from gevent import monkey; monkey.patch_all(ssl=False)
from tidegate.runtime import patches
try:
    patches.apply_third_party_patches()
except patches.PatchRefused as error:
    print(error.message, patches.grpc_patched(), patches.psycopg2_patched())
""",
    )
    assert program.wait() == 0
    assert "has not patched ssl here" in program.text
    assert program.text.strip().endswith("False False")


def test_R13_the_lines_are_out_when_the_process_is_killed_right_after(start):
    program = start(
        "python",
        "-c",
        PATCH
        + """
import os, signal
from tidegate.runtime import patches
patches.apply_third_party_patches()
os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert program.wait() == -signal.SIGKILL
    assert program.text.splitlines() == LINES


def test_names_bound_before_the_patch_are_found_by_identity(start):
    program = start(
        "python",
        "-c",
        "import early, time; "
        + PATCH
        + """
from tidegate.runtime import patches
print(patches.bound_originals())
early.sleep, early.SSLContext = time.sleep, None
print(patches.bound_originals())
""",
        PYTHONWARNINGS="ignore",
    )
    assert program.wait() == 0
    assert program.text.splitlines() == ["['early.SSLContext', 'early.sleep']", "[]"]
