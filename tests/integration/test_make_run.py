"""What a person gets: `make run` in a fresh checkout, the curl line, Ctrl-C, and again."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

ROOT = Path(__file__).resolve().parents[2]


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of the repository in another folder, without what tools made."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "README.md", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "examples", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


class Terminal:
    """`make run`, as in a terminal: a process group that Ctrl-C reaches as a whole."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.output = checkout.parent / "output"
        uv_cache = os.environ.get("UV_CACHE_DIR") or os.path.expanduser("~/.cache/uv")
        environ = {
            **os.environ,
            "HOME": str(checkout.parent / "home"),
            # what was fetched before is not fetched again, and uv is not fetched at all
            "UV_CACHE_DIR": uv_cache,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(_free_port()),
            "PLUGIN_REMOTE_INSTALLING_PORT": str(_free_port()),
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["make", "run"],
                cwd=checkout,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def text(self) -> str:
        """What was printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_until_up(self, seconds: float = 300) -> str:
        """Until the last line of the welcome is there; gives all that was printed."""
        end = time.monotonic() + seconds
        while "Ctrl-C stops everything" not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            gevent.sleep(0.1)
        return self.text()

    def interrupt(self) -> None:
        """Ctrl-C, and wait for the end."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(90)

    def left(self) -> list[str]:
        """Processes that still run something of this checkout."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    folder = os.readlink(entry / "cwd")
                except OSError:
                    continue
                if str(self.checkout) in command or folder.startswith(str(self.checkout)):
                    found.append(f"{entry.name} {command}")
        return found


@pytest.fixture
def terminals(checkout: Path) -> Iterator[list[Terminal]]:
    """Terminals of a test; what still runs at its end is killed."""
    opened: list[Terminal] = []
    yield opened
    for one in opened:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGTERM)
            one.process.wait(90)


def _stream(text: str) -> list[str]:
    """Paste the curl line; gives the texts of its chunks."""
    line = re.search(r"^curl .*", text, re.MULTILINE)
    assert line, text
    done = subprocess.run(shlex.split(line[0]), capture_output=True, text=True, check=True)
    return re.findall(r'"text":\s*"([^"]*)"', done.stdout)


@pytest.mark.limit(700, "makes an environment and starts everything twice")
def test_make_run_streams_stops_and_comes_back(checkout: Path, terminals: list[Terminal]) -> None:
    first = Terminal(checkout)
    terminals.append(first)
    text = first.wait_until_up()
    home = checkout / ".tidegate"
    for line in (f"data     {home}", f"logs     {home / 'logs'}", f"keys     {home / 'keys'}"):
        assert line in text
    assert (home / "keys" / "server.key").stat().st_mode & 0o777 == 0o600
    assert (home / "keys" / "examples.private.pem").stat().st_mode & 0o777 == 0o600
    assert len(_stream(text)) >= 3
    first.interrupt()
    assert first.text().rstrip().endswith("tidegate: stopped")
    assert first.left() == []

    second = Terminal(checkout)
    terminals.append(second)
    text = second.wait_until_up(150)
    assert "[setup" not in text, "nothing is set up again"
    assert "uploading" not in text, "the plugins are still there"
    assert len(_stream(text)) >= 3
    second.interrupt()
    assert second.left() == []
