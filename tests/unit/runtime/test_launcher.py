"""The launcher's words, and that it stays light."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tidegate.errors import StartRefused
from tidegate.runtime import launcher
from tidegate.settings import Settings


@pytest.mark.parametrize(
    ("role", "tail"),
    [
        ("api", "gunicorn -c python:tidegate.gunicorn_conf tidegate.app:app"),
        (
            "worker",
            "celery -A tidegate.celery_entrypoint.celery worker -P gevent"
            " --without-gossip --without-mingle",
        ),
        ("beat", "-m gevent.monkey --module celery -A tidegate.celery_entrypoint.celery beat"),
        ("host", "-m tidegate.host_entrypoint"),
    ],
)
def test_each_role_ends_in_the_real_program(role, tail):
    command = launcher.command_for(role, Settings())
    assert " ".join(command).endswith(tail)
    assert Path(command[0]).is_absolute()
    assert launcher.command_for(role, Settings(), ["-x"]) == [*command, "-x"]


def test_an_unknown_role_is_refused():
    with pytest.raises(StartRefused, match="there is no role 'web': take one of api, worker"):
        launcher.command_for("web", Settings())


def test_the_program_of_another_interpreter_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert launcher.script("gunicorn") == [str(tmp_path / "python"), "-m", "gunicorn"]


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartRefused, match=rf"127\.0\.0\.1:{port} .*SERVER_PORT"):
            launcher.require_free_port("127.0.0.1", port)
    launcher.require_free_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(StartRefused, match="SERVER_HOST"):
        launcher.require_free_port("192.0.2.1", 5002)


def test_a_package_that_is_there_is_found():
    for role in launcher.ROLES:
        launcher.require_installed(role)


def test_a_refusal_is_one_line_and_the_code_that_was_asked_for(capsys):
    with pytest.raises(SystemExit) as ended, launcher.refusals_end_the_process(3):
        raise StartRefused("something is wrong: do this")
    assert ended.value.code == 3
    assert capsys.readouterr().err == "tidegate: something is wrong: do this\n"
