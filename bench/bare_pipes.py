"""A plugin over bare pipes, without any host: what its own speed is."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from server import Server


def bare_seconds(server: Server, plugin: str, parameters: dict[str, Any], streams: int) -> float:
    """Seconds that the same plugin needs for the same work when we read its standard output."""
    process = _start_like(server, plugin)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()  # its first heartbeat
        started = time.monotonic()
        process.stdin.write(b"".join(_line(parameters) for _ in range(streams)))
        process.stdin.flush()
        ended, rest = 0, b""
        while ended < streams:
            data = os.read(process.stdout.fileno(), 1 << 18)
            if not data:
                raise SystemExit(f"{plugin} ended over bare pipes")
            ended += (rest[-20:] + data).count(b'"type":"end"')
            rest = data if len(data) >= 20 else rest + data
            if rest[-20:].count(b'"type":"end"'):
                rest = b""
        return time.monotonic() - started
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _start_like(server: Server, plugin: str) -> subprocess.Popen[bytes]:
    """The running plugin once more: same program, folder and environment, pipes of ours."""
    name = plugin.split("/")[1]
    for pid in server.plugin_pids():
        folder = os.readlink(f"/proc/{pid}/cwd")
        if name in folder:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            environ = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
            pairs = dict(one.split(b"=", 1) for one in environ if b"=" in one)
            return subprocess.Popen(
                command,
                cwd=folder,
                env={os.fsdecode(key): os.fsdecode(value) for key, value in pairs.items()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
    raise SystemExit(f"no process of {plugin} runs")


def _line(parameters: dict[str, Any]) -> bytes:
    data = {
        "user_id": "bench",
        "type": "tool",
        "action": "invoke_tool",
        "provider": "ticker",
        "tool": "produce",
        "tool_parameters": parameters,
        "credentials": {},
    }
    message = {
        "session_id": str(uuid.uuid4()),
        "conversation_id": None,
        "message_id": None,
        "app_id": None,
        "endpoint_id": None,
        "context": {},
        "event": "request",
        "data": data,
    }
    return json.dumps(message).encode() + b"\n"
