"""Fixtures of the process tests: an environment of its own, programs that end with the test."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.processes import BIN, HERE, Program
from tests.servers import postgres_fixture  # noqa: F401 - a fixture, found by its name

Start = Callable[..., Program]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What a program gets: no settings of whoever runs the tests, a data folder, a free port."""
    keep = {
        name: value
        for name, value in os.environ.items()
        if name.lower() in ("lang", "http_proxy", "https_proxy", "no_proxy", "ssl_cert_file")
    }
    return {
        **keep,
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(HERE / "programs"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TIDEGATE_HOME": str(tmp_path / "home"),
        "SERVER_HOST": "127.0.0.1",
        "SERVER_PORT": str(free_port()),
        "PLUGIN_REMOTE_INSTALLING_PORT": str(free_port()),
        "TIDEGATE_GRACE": "2",
    }


@pytest.fixture
def start(environ: dict[str, str]) -> Iterator[Start]:
    """``start("gunicorn", "-c", ...)``: a program of our environment, or an absolute path."""
    # Tests before this one may have used gevent's subprocess: its handler takes all exit codes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    running = ExitStack()

    def run(*argv: str, cwd: Path = HERE, **more: str) -> Program:
        program = argv[0] if "/" in argv[0] else str(BIN / argv[0])
        started = Program([program, *argv[1:]], {**environ, **more}, cwd)
        running.callback(started.close)
        return started

    with running:
        yield run


@pytest.fixture
def probe(start: Start, environ: dict[str, str]) -> Callable[..., Program]:
    """Gunicorn with our configuration and programs/probe.py instead of the api; answers already."""

    def run(*extra: str, **more: str) -> Program:
        program = start("gunicorn", "-c", CONFIG, "probe:app", *extra, **more)
        program.fingerprint()
        return program

    return run


CONFIG = "python:tidegate.gunicorn_conf"


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def port_of(environ: dict[str, Any]) -> int:
    """Where the program under test listens."""
    return int(environ["SERVER_PORT"])
