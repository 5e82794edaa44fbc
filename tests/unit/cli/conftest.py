"""A command run as a person runs it: a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer

type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "home"


@pytest.fixture
def tidegate(home: Path, tmp_path: Path) -> Run:
    """Runs ``tidegate ...``; keyword arguments are environment variables."""

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from tidegate.cli import main; main()", *arguments],
            cwd=tmp_path,
            env={**os.environ, "TIDEGATE_HOME": str(home), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@dataclass
class Recorded:
    """An HTTP server that gives recorded answers and remembers what it was asked."""

    base: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, bytes, str]] = field(default_factory=list)

    def gives(self, path: str, data: Any, *, status: int = 200, plain: bool = False) -> None:
        """The next answer for ``METHOD /path`` below the tenant; the last one is repeated."""
        body = data if plain else {"code": 0, "message": "success", "data": data}
        self.answers.setdefault(path, []).append((status, body))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """The WSGI application."""
        path = environ["PATH_INFO"].split("/", 3)[-1]
        key = f"{environ['REQUEST_METHOD']} {path}"
        body = environ["wsgi.input"].read()
        self.asked.append((key, body, environ.get("HTTP_X_API_KEY", "")))
        waiting = self.answers[key]
        status, answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        start_response(f"{status} X", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


@pytest.fixture
def server() -> Iterator[Recorded]:
    """The recorded server on a free port."""
    recorded = Recorded()
    listener = WSGIServer(("127.0.0.1", 0), recorded, log=None)
    listener.start()
    recorded.base = f"http://127.0.0.1:{listener.server_port}"
    yield recorded
    listener.stop(timeout=1)
