"""Deeds, each a function of this module: what it yields is the answer, what it does is the test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage

type Answer = Generator[ToolInvokeMessage, None, None]


class ActTool(Tool):
    def _invoke(self, tool_parameters: dict[str, Any]) -> Answer:
        deed = globals()[str(tool_parameters["deed"])]
        yield from deed(self, tool_parameters)


def _raw(data: bytes) -> None:
    """Past the SDK, straight to standard output."""
    sys.stdout.flush()
    while data:
        data = data[os.write(1, data) :]


def _line(tool: Tool, type: str, data: Any) -> bytes:
    message = {"type": type, "data": data}
    event = {"event": "session", "session_id": tool.session.session_id, "data": message}
    return json.dumps(event).encode() + b"\n"


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "message": {"text": text}, "meta": None}


def stream(tool: Tool, given: dict[str, Any]) -> Answer:
    for number in range(int(given.get("count", 3))):
        yield tool.create_text_message(f"{number} " + "x" * int(given.get("size", 0)))
        if given.get("pause"):
            time.sleep(float(given["pause"]))


def echo(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message(str(given.get("text", "")))


def pid(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message(str(os.getpid()))


def hang(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("going to hang")
    time.sleep(3600)


def fail(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    raise ValueError("boom")


def die(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("last words")
    print("cannot go on at", __file__, file=sys.stderr, flush=True)
    os._exit(int(given.get("code", 7)))


def crash(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("last words")
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def close_stdout(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("last words")
    if given.get("child"):
        subprocess.Popen(["sleep", "300"])  # has it open as well
    os.close(1)
    time.sleep(60)


def close_stdin(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("deaf from now on")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    time.sleep(60)


def die_with_children(tool: Tool, given: dict[str, Any]) -> Answer:
    child = subprocess.Popen(["sleep", "300"])
    other = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"])
    yield tool.create_text_message(f"{child.pid} {other.pid}")
    time.sleep(0.2)
    os._exit(1)


def noise(tool: Tool, given: dict[str, Any]) -> Answer:
    for number in range(10):
        yield tool.create_text_message(str(number))
        print("a line of print()")
        _raw(b"\x00\xff\xfe\x1b[31m raw bytes\n[1, 2]\n{}\nnull\n")


def glued(tool: Tool, given: dict[str, Any]) -> Answer:
    for number in range(10):
        print("no newline ", end="", flush=True)
        yield tool.create_text_message(str(number))


def huge_line(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("y" * int(given["size"]))


def endless_line(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    head = _line(tool, "stream", _text("HERE"))
    _raw(head[: head.index(b"HERE")])
    for _ in range(int(given["size"]) >> 16):
        _raw(b"z" * 65536)
    _raw(b"\n")


def half_lines(tool: Tool, given: dict[str, Any]) -> Answer:
    line = _line(tool, "stream", _text("in halves"))
    # Nobody else of this process may write into the pause: not even its heartbeat.
    writer, late = type(tool.session.writer), []
    write, writer.write = writer.write, lambda self, data: late.append(data)
    try:
        _raw(line[:40])
        time.sleep(float(given.get("pause", 0.3)))
        _raw(line[40:])
    finally:
        writer.write = write
    _raw("".join(late).encode())
    for byte in _line(tool, "stream", _text("byte by byte")):
        _raw(bytes([byte]))
    yield tool.create_text_message("whole")


def broken_line(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    _raw(_line(tool, "stream", _text("x"))[:-20] + b"\n")
    time.sleep(0.1)


def deep_line(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    text = _line(tool, "stream", "DEEP").replace(b'"DEEP"', b"[" * 10000 + b"]" * 10000)
    _raw(text)
    time.sleep(0.1)


def unknown_type(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    _raw(_line(tool, "dance", {}))
    time.sleep(0.1)


def unknown_events(tool: Tool, given: dict[str, Any]) -> Answer:
    _raw(b'{"event":"party","session_id":"x","data":{}}\n')
    _raw(b'{"event":"session","session_id":"nobody","data":{"type":"stream","data":{}}}\n')
    _raw(b'{"event":"session","session_id":7,"data":{}}\n')
    yield tool.create_text_message("still here")


def after_the_end(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    _raw(_line(tool, "end", {}) * 2 + _line(tool, "stream", _text("after")))
    _raw(_line(tool, "error", {"error_type": "X", "message": "after", "args": {}}))


def stderr_flood(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    length = int(given.get("line", 0))
    piece = (b"e" * (length - 1) + b"\n") * (65536 // length) if length else b"e" * 65536
    for _ in range(int(given["size"]) >> 16):
        os.write(2, piece)
    yield tool.create_text_message("after")


def stdout_flood(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("before")
    length = int(given.get("line", 64))
    piece = (b"f" * (length - 1) + b"\n") * (65536 // length)
    for _ in range(int(given["size"]) >> 16):
        _raw(piece)
    yield tool.create_text_message("after")


def flood_of(tool: Tool, given: dict[str, Any]) -> Answer:
    """One line, over and over."""
    yield tool.create_text_message("before")
    line = str(given["text"]).encode() + b"\n"
    piece = line * (65536 // len(line))
    for _ in range(int(given["size"]) >> 16):
        _raw(piece)
    yield tool.create_text_message("after")


def chunks(tool: Tool, given: dict[str, Any]) -> Answer:
    """As many bytes in messages of some length: what a flood is compared with."""
    yield tool.create_text_message("before")
    line = _line(tool, "stream", _text("c" * int(given["line"])))
    piece = line * (65536 // len(line))
    for _ in range(int(given["size"]) >> 16):
        _raw(piece)
    yield tool.create_text_message("after")


def nap(tool: Tool, given: dict[str, Any]) -> Answer:
    """Nothing, for a while."""
    time.sleep(float(given.get("seconds", 1)))
    yield tool.create_text_message("awake")


def spy_env(tool: Tool, given: dict[str, Any]) -> Answer:
    descriptors = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:3]}
    found = {
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "session": os.getsid(0) == os.getpid(),
        "descriptors": descriptors,
        "executable": sys.executable,
        "nofile": __import__("resource").getrlimit(7),
    }
    yield tool.create_text_message(json.dumps(found))


def not_reading(tool: Tool, given: dict[str, Any]) -> Answer:
    yield tool.create_text_message("stopped")
    # Everything of this process waits, the reader of standard input as well.
    os.kill(os.getpid(), signal.SIGSTOP)
    yield tool.create_text_message("goes on")


def store(tool: Tool, given: dict[str, Any]) -> Answer:
    tool.session.storage.set("key", b"value")
    yield tool.create_text_message("stored")


def burn(tool: Tool, given: dict[str, Any]) -> Answer:
    """Use a whole core, and give nobody else a turn."""
    yield tool.create_text_message("burning")
    end = time.perf_counter() + float(given["long"])
    while time.perf_counter() < end:
        sum(range(1000))
    yield tool.create_text_message("cold")


def deadlock(tool: Tool, given: dict[str, Any]) -> Answer:
    """Stand still with every session of this process, without being stopped."""
    if given.get("speak", True):
        yield tool.create_text_message("still here")
    signal.pause()
    yield tool.create_text_message("never")


def eat(tool: Tool, given: dict[str, Any]) -> Answer:
    """Take memory, in a child process when asked to, and keep it."""
    yield tool.create_text_message("eating")
    size = int(given["size"])
    if given.get("child"):
        code = f"b = bytearray({size}); b[::4096] = b'x' * len(b[::4096]); input()"
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        time.sleep(60)
    kept = []
    for _ in range(size >> 20):
        kept.append(b"\xff" * (1 << 20))
        time.sleep(0.001)
    time.sleep(60)
    yield tool.create_text_message(f"ate {len(kept)}")


def breed(tool: Tool, given: dict[str, Any]) -> Answer:
    """A small fork bomb: processes that wait, as many as asked for."""
    yield tool.create_text_message("breeding")
    kept = [subprocess.Popen(["sleep", "300"]) for _ in range(int(given["count"]))]
    yield tool.create_text_message(f"bred {len(kept)}")
    time.sleep(float(given.get("pause", 60)))


def escape(tool: Tool, given: dict[str, Any]) -> Answer:
    """Processes that leave group, session and parent behind, with an empty environment."""
    script = "setsid sh -c 'sleep 300 & echo $!; wait' & wait"
    child = subprocess.Popen(
        ["/usr/bin/setsid", "sh", "-c", script],
        env={"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
    )
    pid = child.stdout.readline().decode().strip()
    yield tool.create_text_message(f"{pid} {child.pid}")
    time.sleep(float(given.get("pause", 0)))
    if given.get("die"):
        os._exit(1)


def _tried(deed: Any) -> str:
    try:
        return f"yes: {deed()!r}"[:200]
    except OSError as error:
        return f"no: {error.strerror}"


def _read(path: str) -> Any:
    return os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(64)


def _write(path: str) -> None:
    with open(path, "w") as file:
        file.write("spy")


KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]


def spy(tool: Tool, given: dict[str, Any]) -> Answer:
    """What this process can see, touch and become."""
    ctypes = __import__("ctypes")
    libc = ctypes.CDLL(None, use_errno=True)
    raw = __import__("socket").socket
    host = int(given.get("host", os.getppid()))
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    found = {
        "read": {path: _tried(lambda path=path: _read(path)) for path in given["paths"]},
        "uid": os.getuid(),
        "variables": sorted(os.environ),
        "core": __import__("resource").getrlimit(4),
        "groups": os.getgroups(),
        "umask_home": _tried(lambda: _write(os.path.expanduser("~/mine"))),
        "scratch": _tried(lambda: _write(os.path.join(os.environ["TMPDIR"], "mine"))),
        "tmp": _tried(lambda: os.listdir("/tmp")),
        "cwd": _tried(lambda: _write("mine")),
        "library": _tried(lambda: _write(os.path.join(sys.prefix, "pyvenv.cfg"))),
        "environ": _tried(lambda: _read(f"/proc/{host}/environ")),
        "memory": _tried(lambda: open(f"/proc/{host}/mem", "rb").close()),
        "descriptors": _tried(lambda: os.listdir(f"/proc/{host}/fd")),
        "ptrace": _tried(lambda: call("ptrace", 0x4206, host, 0, 0)),
        "mount": _tried(lambda: call("mount", b"none", b"/", None, 1 << 18, None)),
        "unshare": _tried(lambda: call("unshare", 0x10000000)),
        "keyctl": _tried(lambda: call("syscall", KEYCTL, 0, -3, 1)),
        "look": _tried(lambda: call("ptrace", 0x4206, child.pid, 0, 0)),
        "raw": _tried(lambda: raw(2, 3, 1).close()),
        "packets": _tried(lambda: raw(17, 3, 3).close()),
        "signal": _tried(lambda: os.kill(host, 0)),
        "root": os.listdir("/"),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "pid": os.getpid(),
        "status": Path("/proc/self/status").read_text(),
        # the last: where it may, it is somebody else from then on
        "setuid": _tried(lambda: os.setuid(0 if os.getuid() else 12345)),
    }
    child.stdin.close()
    yield tool.create_text_message(json.dumps(found))


def written(tool: Tool, given: dict[str, Any]) -> Answer:
    """Lines where the SDK writes its own, whatever it is connected by."""
    line = str(given["line"]).replace("SESSION", str(tool.session.session_id))
    tool.session.writer.write(line + "\n")
    yield tool.create_text_message("written")


def ask_llm(tool: Tool, given: dict[str, Any]) -> Answer:
    asked = {"provider": "x", "model": "y", "mode": "chat", "model_type": "llm"}
    backwards = tool.session.model.llm._backwards_invoke
    for _ in backwards(__import__("dify_plugin").core.entities.invocation.InvokeType.LLM, dict, asked):
        pass
    yield tool.create_text_message("asked")
