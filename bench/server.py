"""A Tidegate of its own for a measurement: start, install, CPU and memory of its roles, stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tidegate import packages
from tidegate.cli.client import Client
from tidegate.cli.plugin import installing
from tidegate.cli.target import DEFAULT_TENANT, Target
from tidegate.settings import Secret

KEY = "for measurements only"
#: The plugin that runs in two instances.
PAIR = "tidegate/pair"
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``tidegate up`` on a folder and ports of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.target = Target(f"http://127.0.0.1:{self.port}", Secret(KEY), DEFAULT_TENANT)
        self.client = Client(self.target)
        environ = {
            **os.environ,
            "TIDEGATE_HOME": str(home),
            "SERVER_KEY": KEY,
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(self.port),
            "PLUGIN_REMOTE_INSTALLING_PORT": str(free_port()),
            "FORCE_VERIFYING_SIGNATURE": "false",
            "TIDEGATE_GRACE": "2",
            "TIDEGATE_PER_PLUGIN": f"{PAIR}:INSTANCES_MIN=2:INSTANCES_MAX=2",
        }
        self._log = (home.parent / "up.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "up"],
            env=environ,
            stdout=self._log,
            stderr=self._log,
        )
        self._wait()

    def _wait(self) -> None:
        for _ in range(600):
            if self._process.poll() is not None:
                break
            try:
                self.client.root("GET", "/health/check")
                installing.installed(self.client)
            except Exception:
                time.sleep(0.1)
            else:
                return
        said = Path(self._log.name).read_text(errors="replace")[-2000:]
        raise SystemExit(f"tidegate up does not serve:\n{said}")

    def install(self, folder: Path) -> str:
        """Pack and install a plugin; gives its plugin id."""
        data = packages.build_package(folder)
        identifier = installing.upload(self.client, f"{folder.name}.difypkg", data)
        installing.install(self.client, identifier, lambda _: None)
        return identifier.split(":")[0]

    def stop(self) -> None:
        """Stop in order."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        self._log.close()

    def pids(self) -> list[int]:
        """Processes of api and host, the plugins apart."""
        api = _first_pid(self.home / "run" / "api.pid")
        return [api, *_children(api), self._host_pid()]

    def plugin_pids(self) -> list[int]:
        """What the host started."""
        return _children(self._host_pid())

    def _host_pid(self) -> int:
        """The host itself: the one child of the guard above it."""
        return _children(_first_pid(self.home / "run" / "host.pid"))[0]

    def cpu(self) -> float:
        """Seconds of CPU that api and host used so far."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def memory(self) -> int:
        """Private bytes of api and host."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) << 10
        return total


def _first_pid(path: Path) -> int:
    return int(path.read_text().split()[0])


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found
