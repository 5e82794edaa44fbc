"""Gunicorn's boot: who patches when, and what is refused (R1, R4 to R9, R32)."""

from __future__ import annotations

import ast
import json
import re
import socket
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.runtime.asking import ask
from tests.runtime.conftest import CONFIG, port_of
from tests.runtime.processes import BIN, HERE, ROOT, tree

APP = "tidegate.app:app"
REFUSED, HALTED = 78, 3


def test_R1_the_worker_is_gevents_and_its_parent_is_the_master(probe, environ):
    program = probe()
    state = ask(environ, "/state")
    assert (state["runner"], state["pool"], state["workers"]) == ("gunicorn", "GeventWorker", 1)
    assert state["ppid"] == program.pid
    assert tree(program.pid) == [state["pid"]]


def test_R4_app_as_a_program_is_refused_without_importing_anything(start):
    program = start("python", "-X", "importtime", "-m", "tidegate.app")
    assert program.wait() == REFUSED
    assert program.took_less_than(2)
    lines = [line for line in program.text.splitlines() if not line.startswith("import time:")]
    assert len(lines) == 1
    assert "tidegate api" in lines[0]
    assert not re.search(r"\| +(tidegate\.|gevent|socket|ssl|gunicorn)", program.text)


def test_R4_no_entry_file_starts_a_server_or_patches_when_imported():
    for name in ("app", "gunicorn_conf", "celery_entrypoint", "host_entrypoint"):
        tree_ = ast.parse((ROOT / "src/tidegate" / f"{name}.py").read_text())
        guarded = [node for node in tree_.body if isinstance(node, ast.If)]
        rest = [node for node in tree_.body if node not in guarded]
        for node in [inner for outer in rest for inner in ast.walk(outer)]:
            called = node.func if isinstance(node, ast.Call) else None
            assert getattr(called, "attr", "") not in ("patch_all", "serve_forever"), name
        for node in guarded:
            assert "patch_all" not in ast.unparse(node) or "__main__" in ast.unparse(node.test)


@pytest.mark.parametrize(
    "server",
    [
        "from gevent.pywsgi import WSGIServer as S; S(('127.0.0.1', PORT), app).serve_forever()",
        "from wsgiref.simple_server import make_server as S;"
        "S('127.0.0.1', PORT, app).serve_forever()",
    ],
    ids=["pywsgi", "wsgiref"],
)
def test_R4_app_answers_nothing_in_a_process_that_did_not_boot(start, environ, server):
    code = f"PORT = {port_of(environ)}; from tidegate.app import app; {server}"
    program = start("python", "-c", code)
    wait_until(lambda: _connects(port_of(environ)), 10)
    with socket.create_connection(("127.0.0.1", port_of(environ))) as client:
        client.sendall(b"GET /health/check HTTP/1.0\r\n\r\n")
        answer = client.recv(4096)
    assert b" 500 " in answer.splitlines()[0]
    program.wait_for(r"did not pass Tidegate's boot: start the api with `tidegate api`")


def test_R5_R6_patch_order_and_what_is_imported_before(start):
    program = start("gunicorn", "-c", "python:ordered_conf", APP, PYTHONWARNINGS="error")
    program.wait_for("STEP post_worker_init")
    steps = re.findall(r"^STEP (\w+) patched=(\d) third=(\w+) early=(\[.*\]) ours=(.*)$",
                       program.text, re.MULTILINE)  # fmt: skip
    assert [step[:3] for step in steps] == [
        ("conf", "0", "False"),
        ("on_starting", "0", "False"),
        ("post_fork", "0", "False"),
        ("will_patch", "0", "False"),
        ("did_patch", "9", "True"),
        ("app", "9", "True"),
        ("post_worker_init", "9", "True"),
    ]
    assert {step[3] for step in steps} == {"[]"}
    before = set(steps[3][4].split(","))
    assert before <= {
        "runtime",
        "telemetry",
        "errors",
        "settings",
        "setting_fields",
        "clock",
        "gunicorn_conf",
    }
    assert "MonkeyPatchWarning" not in program.text


def test_R6_https_works_after_the_patch(probe, environ, tmp_path):
    from tests.runtime.tls import tls_server

    probe(PYTHONWARNINGS="error::gevent.monkey.MonkeyPatchWarning")
    with tls_server(tmp_path) as (url, ca):
        assert ask(environ, "/https", url=url, ca=str(ca)) == [200] * 10


def test_R7_the_working_directory_does_not_matter(start, environ, tmp_path):
    for folder in (tmp_path, Path("/"), ROOT):
        program = start("gunicorn", "-c", CONFIG, "probe:app", cwd=folder)
        program.fingerprint()
        assert "gRPC waits through gevent" in program.text
        assert "psycopg2 waits through gevent" in program.text
        program.kill()
        assert program.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "setting", "says"),
    [
        (("-k", "sync"), "", "worker class 'sync'"),
        (("-k", "gthread"), "", "worker class 'gthread'"),
        ((), "sync", "worker class 'sync'"),
        (("--preload",), "", "--preload"),
    ],
    ids=["sync", "gthread", "SERVER_WORKER_CLASS", "preload"],
)
def test_R8_static_faults_are_refused_in_the_master(start, arguments, setting, says):
    program = start("gunicorn", "-c", CONFIG, *arguments, APP, SERVER_WORKER_CLASS=setting)
    assert program.wait() == REFUSED
    assert program.took_less_than(3)
    assert "Booting worker" not in program.text
    [line] = [line for line in program.text.splitlines() if line.startswith("tidegate:")]
    assert says in line
    assert "`tidegate api`" in line
    assert "Traceback" not in program.text


def test_R8_a_port_that_is_taken_is_one_line(start, environ):
    with socket.create_server(("127.0.0.1", port_of(environ))):
        for command in (("gunicorn", "-c", CONFIG, APP), ("tidegate", "api")):
            program = start(*command)
            assert program.wait() == REFUSED
            assert program.took_less_than(3)
            [line] = [one for one in program.text.splitlines() if one.startswith("tidegate:")]
            assert "SERVER_PORT" in line


@pytest.mark.parametrize(
    ("fault", "says"),
    [("ssl", "gevent has not patched ssl"), ("early", r"early\.SSLContext, early\.sleep")],
)
def test_R9_a_guard_that_fails_in_the_worker_stops_the_server(start, fault, says):
    program = start("python", str(HERE / "programs/run_gunicorn.py"), fault, "-c", CONFIG,
                    "probe:app")  # fmt: skip
    assert program.wait() == HALTED
    assert program.took_less_than(3)
    assert program.text.count("Booting worker") == 1
    [line] = [line for line in program.text.splitlines() if re.match(rf"tidegate: .*{says}", line)]
    assert "`tidegate api`" in line
    assert "Traceback" not in program.text


@pytest.mark.parametrize("package", ["packaging", "wsproto"])
def test_R32_a_missing_package_is_named(start, package):
    hidden = str(HERE / "programs/hidden.py")
    for arguments in (
        (str(BIN / "tidegate"), "api"),
        (str(BIN / "gunicorn"), "-c", CONFIG, APP),
    ):
        program = start("python", hidden, package, *arguments)
        assert program.wait() == REFUSED
        assert program.took_less_than(3)
        assert f"'{package}' is missing" in program.text


def _connects(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_gunicorns_log_has_our_shape(probe):
    program = probe(LOG_OUTPUT_FORMAT="json")
    listening = json.loads(program.wait_for(r"^\{.*Listening at.*\}$")[0])
    assert listening["severity"] == "INFO"
    booting = json.loads(program.wait_for(r"^\{.*Booting worker with pid.*\}$")[0])
    assert booting["service"] == "tidegate"


def test_the_control_socket_of_gunicorn_is_off(probe, environ, tmp_path):
    probe()
    assert not (tmp_path / ".gunicorn").exists()
