"""Starts one server for the tests and ends it when standard input closes; see servers.py.

    server_keeper.py postgres|redis|sentinel|cluster|s3 FOLDER_OF_THE_WHEEL

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
Servers = list[subprocess.Popen[bytes]]


def _keep(kind: str, package: Path) -> None:
    parent = tempfile.gettempdir()
    if len(parent) > 60:  # a unix socket's path ends at 107 bytes
        parent = "/tmp"
    folder = Path(tempfile.mkdtemp(prefix=f"tidegate-{kind}-", dir=parent))
    servers: list[subprocess.Popen[bytes]] = []
    try:
        answer = _STARTS[kind](servers, folder, package)
        print(json.dumps(answer), flush=True)
        while os.read(0, 4096):
            pass
    finally:
        for server in servers:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(2)  # PostgreSQL: fast shutdown; Redis: shutdown
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _start_postgres(servers: Servers, folder: Path, package: Path) -> dict[str, Any]:
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
    servers.append(server)
    _until_ready(
        server, folder, lambda: (data / "postmaster.pid").read_text().split()[-1] == "ready"
    )
    return {"host": str(folder), "port": 5432, "user": "postgres"}


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


def _start_redis(servers: Servers, folder: Path, package: Path) -> dict[str, Any]:
    port = _redis(servers, folder, package, "--save", "", "--appendonly", "no")
    return {"host": "127.0.0.1", "port": port}


def _start_sentinel(servers: Servers, folder: Path, package: Path) -> dict[str, Any]:
    """A master, a replica of it, and one sentinel that decides alone."""
    plain = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
    master = _redis(servers, folder, package, *plain)
    _redis(servers, folder, package, *plain, "--replicaof", "127.0.0.1", str(master))
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"sentinel monitor main 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 2000\n"
    )
    port = _redis(servers, folder, package, conf=conf)
    _until(lambda: _tell(port, "SENTINEL", "REPLICAS", "main").count(b"runid") == 1)
    return {"host": "127.0.0.1", "port": port}


def _start_cluster(servers: Servers, folder: Path, package: Path) -> dict[str, Any]:
    """Three masters that have a third of the slots each."""
    ports = []
    for number in range(3):
        own = folder / str(number)
        own.mkdir()
        ports.append(_redis(servers, own, package, "--save", "", "--cluster-enabled", "yes"))
    edges = (0, 5461, 10923, 16384)
    for number, port in enumerate(ports):
        _tell(port, "CLUSTER", "ADDSLOTSRANGE", str(edges[number]), str(edges[number + 1] - 1))
        _tell(port, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        _tell(port, "CLUSTER", "MEET", "127.0.0.1", str(ports[0]))
    for port in ports:
        _until(lambda port=port: b"cluster_state:ok" in _tell(port, "CLUSTER", "INFO"))
        _until(lambda port=port: b"cluster_known_nodes:3" in _tell(port, "CLUSTER", "INFO"))
    return {"host": "127.0.0.1", "port": ports[0]}


def _redis(
    servers: Servers, folder: Path, package: Path, *options: str, conf: Path | None = None
) -> int:
    """Start one server, a sentinel when it has a configuration file; its port."""
    program = next(package.glob("_binaries/*/valkey-server"))
    if not os.access(program, os.X_OK):
        program = Path(shutil.copy(program, folder / "valkey-server"))
        program.chmod(0o700)
    for _ in range(10):  # somebody may take the port between our look and the server's bind
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port > 55000 and "--cluster-enabled" in options:
            continue  # the cluster's own port is 10000 further up
        log = folder / f"log-{port}"
        command = [program, *([conf, "--sentinel"] if conf else ()), "--port", str(port)]
        command += ["--bind", "127.0.0.1", "--dir", folder, *options]
        with log.open("wb") as file:
            server = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder)
        servers.append(server)
        with suppress(ChildProcessError):
            _until_ready(server, folder, lambda port=port: b"+PONG" in _tell(port, "PING"), log)
            return port
        servers.remove(server)
    raise SystemExit("no port for the Redis server")


def _tell(port: int, *words: str) -> bytes:
    """One command in Redis' protocol; the start of the raw answer, or nothing."""
    text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(text.encode())
        return connection.recv(65536)
    return b""


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + START_LIMIT
    while not true():
        if time.monotonic() > end:
            raise SystemExit("the Redis servers do not come together")
        time.sleep(0.01)


def _start_s3(servers: Servers, folder: Path, package: Path) -> dict[str, Any]:
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
    servers.append(server)
    _until_ready(server, folder, lambda: said.read_text().split()[-2] == "port")
    return {"endpoint": f"http://127.0.0.1:{said.read_text().split()[-1]}"}


def _until_ready(
    server: subprocess.Popen[bytes],
    folder: Path,
    ready: Callable[[], bool],
    log: Path | None = None,
) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError, IndexError):
            if ready():
                return
        time.sleep(0.01)
    server.kill()
    server.wait()
    sys.stderr.write((log or folder / "log").read_text(errors="replace")[-4000:])
    raise ChildProcessError(f"server ended with {server.returncode}")


_STARTS = {
    "postgres": _start_postgres,
    "redis": _start_redis,
    "sentinel": _start_sentinel,
    "cluster": _start_cluster,
    "s3": _start_s3,
}

if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]))
