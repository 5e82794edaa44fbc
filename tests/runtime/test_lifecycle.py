"""Streams while the api reloads, stops and takes long (R18, R25, R26)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import gevent
import pytest

from tests.patience import patience, wait_until
from tests.runtime.asking import ask, opened
from tests.runtime.conftest import port_of
from tests.runtime.processes import HERE


def test_R25_a_stream_outlives_the_timeout(probe, environ):
    probe(GUNICORN_TIMEOUT="2")
    with opened(environ, "/stream", chunks="5", every="1") as response:
        lines = response.read().splitlines()
    assert lines == [b"chunk 0", b"chunk 1", b"chunk 2", b"chunk 3", b"chunk 4", b"complete"]


def test_R26_term_lets_a_stream_that_is_short_enough_finish(probe, environ):
    program = probe()
    with opened(environ, "/stream", chunks="3", every="0.3") as response:
        assert response.readline() == b"chunk 0\n"
        program.kill()
        assert response.read().splitlines()[-1] == b"complete"
    assert program.wait() == 0


def test_R26_term_tells_a_long_stream_in_time(probe, environ):
    program = probe(TIDEGATE_GRACE="1.5")
    with opened(environ, "/stream", chunks="1000", every="0.2") as response:
        assert response.readline() == b"chunk 0\n"
        program.kill()
        began = time.monotonic()
        assert response.read().splitlines()[-1] == b"stopped"
        assert 1 < time.monotonic() - began < patience(2.5)
    assert program.wait() == 0
    assert program.text.count("SIGKILL") == 0


def test_R26_term_stops_accepting(probe, environ):
    program = probe(TIDEGATE_GRACE="10")
    with opened(environ, "/stream", chunks="4", every="0.5") as response:
        response.readline()
        program.kill()
        wait_until(lambda: _refused(environ), 10)
        assert response.read().splitlines()[-1] == b"complete"
    assert program.wait() == 0


def test_R26_an_idle_connection_does_not_hold_the_stop(probe, environ):
    program = probe(TIDEGATE_GRACE="20")
    connection = http.client.HTTPConnection("127.0.0.1", port_of(environ), timeout=10)
    connection.request("GET", "/state")
    connection.getresponse().read()
    fresh = socket.create_connection(("127.0.0.1", port_of(environ)))
    with closing(connection), fresh, opened(environ, "/stream", chunks="3", every="1") as response:
        response.readline()
        program.kill()
        assert connection.sock.recv(1) == b""  # closed by the server
        assert response.read().splitlines()[-1] == b"complete"
        assert program.wait() == 0
        assert program.took_less_than(8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_R26_an_interrupt_gives_each_stream_its_last_word(probe, environ, number):
    program = probe()
    with opened(environ, "/stream", chunks="1000", every="5") as response:
        assert response.readline() == b"chunk 0\n"
        program.kill(number)
        assert response.read().splitlines()[-1] == b"stopped"
    assert program.wait() == 0


def test_R26_hup_replaces_the_worker_and_the_old_one_drains(probe, environ):
    program = probe()
    old = ask(environ, "/state")["pid"]
    with opened(environ, "/stream", chunks="4", every="0.5") as response:
        response.readline()
        program.kill(signal.SIGHUP)
        wait_until(lambda: ask(environ, "/state")["pid"] != old, 10)
        assert response.read().splitlines()[-1] == b"complete"
    new = ask(environ, "/state")["pid"]
    assert program.text.count(f"Booting worker with pid: {new}") == 1


def test_R18_an_edit_starts_a_new_patched_worker_while_a_stream_is_open(start, environ, tmp_path):
    source = tmp_path / "edited.py"
    source.write_text((HERE / "programs/probe.py").read_text())
    program = start("gunicorn", "-c", "python:tidegate.gunicorn_conf", "edited:app", "--reload",
                    PYTHONPATH=str(tmp_path))  # fmt: skip
    before = program.fingerprint()
    assert before["reload"] is True
    with opened(environ, "/stream", chunks="1000", every="0.2") as response:
        assert response.readline() == b"chunk 0\n"
        gevent.sleep(1.1)  # the reloader compares whole seconds of the file's time
        source.touch()
        began = time.monotonic()
        assert response.read().splitlines()[-1] == b"stopped"
        after = wait_until(lambda: _other_state(environ, before["pid"]), 10)
    assert time.monotonic() - began < patience(5)
    assert {**after, "pid": 0} == {**before, "pid": 0}


def test_a_worker_whose_master_was_killed_ends_by_itself(probe, environ):
    program = probe()
    worker = ask(environ, "/state")["pid"]
    program.kill(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), 10)


def test_R27_streamed_requests_leave_no_memory_behind(probe, environ):
    _stays_as_large(probe, environ, warm=300, times=600)


@pytest.mark.soak
@pytest.mark.limit(900, "the long run itself")
def test_R27_twenty_thousand_streamed_requests_leave_no_memory_behind(probe, environ):
    _stays_as_large(probe, environ, warm=2000, times=20_000)


def _stays_as_large(probe, environ, *, warm: int, times: int) -> None:
    probe()
    pid = ask(environ, "/state")["pid"]
    _stream_often(environ, warm)
    before = _resident(pid)
    _stream_often(environ, times)
    assert _resident(pid) - before < 2 << 20


def _stream_often(environ: dict[str, str], times: int) -> None:
    for _ in range(times):
        with opened(environ, "/stream", chunks="5", every="0") as response:
            assert response.read().endswith(b"complete\n")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _refused(environ: dict[str, str]) -> bool:
    try:
        ask(environ, "/state")
    except OSError:
        return True
    return False


def _other_state(environ: dict[str, str], pid: int) -> object:
    try:
        state = ask(environ, "/state", timeout=patience(1))
    except OSError:
        return None
    return state if state["pid"] != pid else None
