"""Starts one server for the tests and ends it when standard input closes; see servers.py.

    server_keeper.py postgres|redis|s3 FOLDER_OF_THE_WHEEL

Prints one JSON line when the server is ready. Not patched: a plain process that only waits.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

START_LIMIT = 60.0


def _keep(kind: str, package: Path) -> None:
    parent = tempfile.gettempdir()
    if len(parent) > 60:  # a unix socket's path ends at 107 bytes
        parent = "/tmp"
    folder = Path(tempfile.mkdtemp(prefix=f"tidegate-{kind}-", dir=parent))
    server = None
    try:
        start = {"postgres": _start_postgres, "redis": _start_redis, "s3": _start_s3}[kind]
        server, answer = start(folder, package)
        print(json.dumps(answer), flush=True)
        while os.read(0, 4096):
            pass
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(2)  # PostgreSQL: fast shutdown; Redis: shutdown
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _start_postgres(folder: Path, package: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    as_user = _not_root(folder)
    programs = _postgres_programs(folder, package, as_user)
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
    initdb += ["--encoding=UTF8", "--locale=C"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "autovacuum": "off",
        "shared_buffers": "32MB",
        "max_connections": "200",
        "wal_level": "minimal",
        "max_wal_senders": "0",
    }
    command = [programs / "postgres", "-D", data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
    _until_ready(
        server, folder, lambda: (data / "postmaster.pid").read_text().split()[-1] == "ready"
    )
    return server, {"host": str(folder), "port": 5432, "user": "postgres"}


def _not_root(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it is nobody, and owns its folder."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _postgres_programs(folder: Path, package: Path, as_user: dict[str, Any]) -> Path:
    programs = max(package.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    try:
        subprocess.run(
            [programs / "postgres", "--version"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user,
        )  # fmt: skip
    except OSError:  # below root's home, where nobody may not look: take a copy
        copy = folder / "wheel"
        for part in (programs.parent, package.parent / f"{package.name}.libs"):
            shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True)
        return copy / programs.relative_to(package.parent)
    return programs


def _start_redis(folder: Path, package: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    program = next(package.glob("_binaries/*/valkey-server"))
    if not os.access(program, os.X_OK):
        program = Path(shutil.copy(program, folder / "valkey-server"))
        program.chmod(0o700)
    for _ in range(10):  # somebody may take the port between our look and the server's bind
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        log = (folder / "log").open("wb")
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        with suppress(ChildProcessError):
            _until_ready(
                server, folder, lambda: b"Ready to accept" in (folder / "log").read_bytes()
            )
            return server, {"host": "127.0.0.1", "port": port}
    raise SystemExit("no port for the Redis server")


def _start_s3(folder: Path, package: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    program = (
        "import sys, time\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n"
        "server.start()\n"
        "print('port', server.get_host_and_port()[1], flush=True)\n"
        "time.sleep(1e9)\n"
    )
    log, said = (folder / "log").open("wb"), folder / "said"
    with said.open("wb") as out:
        environ = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "5"}  # so that lists have pages
        command = [sys.executable, "-c", program]
        server = subprocess.Popen(command, stdout=out, stderr=log, cwd=folder, env=environ)
    _until_ready(server, folder, lambda: said.read_text().split()[-2] == "port")
    return server, {"endpoint": f"http://127.0.0.1:{said.read_text().split()[-1]}"}


def _until_ready(server: subprocess.Popen[bytes], folder: Path, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError, IndexError):
            if ready():
                return
        time.sleep(0.01)
    server.kill()
    server.wait()
    sys.stderr.write((folder / "log").read_text(errors="replace")[-4000:])
    raise ChildProcessError(f"server ended with {server.returncode}")


if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]))
