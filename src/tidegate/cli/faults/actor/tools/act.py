"""Deeds of the bad actor: what one yields is its answer, what it does is the fault."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage

type Answer = Generator[ToolInvokeMessage, None, None]


class ActTool(Tool):
    """Carries out the deed that its parameter names."""

    def _invoke(self, tool_parameters: dict[str, Any]) -> Answer:
        deed = getattr(self, f"deed_{tool_parameters['deed']}")
        yield from deed(tool_parameters)

    # ------------------------------------------------------------------ good ones

    def deed_tick(self, given: dict[str, Any]) -> Answer:
        """Numbers, one after the other; what bystanders read."""
        for number in range(int(given["count"])):
            yield self.create_text_message(f"{number} " + "x" * int(given.get("size", 0)))
            time.sleep(float(given.get("pause", 0)))

    def deed_pid(self, given: dict[str, Any]) -> Answer:
        """A short call."""
        yield self.create_text_message(str(os.getpid()))

    # ------------------------------------------------------------------ death

    def deed_exit(self, given: dict[str, Any]) -> Answer:
        """Leave in the middle of an answer, with a word on stderr."""
        yield self.create_text_message("last words")
        print("cannot go on", file=sys.stderr, flush=True)
        os._exit(7)

    def deed_segv(self, given: dict[str, Any]) -> Answer:
        """Crash as native code does."""
        yield self.create_text_message("last words")
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)

    def deed_orphans(self, given: dict[str, Any]) -> Answer:
        """Die and leave children behind."""
        subprocess.Popen(["sleep", "300"])
        yield self.create_text_message("last words")
        os._exit(1)

    def deed_deaf_and_dumb(self, given: dict[str, Any]) -> Answer:
        """Close standard output and live on."""
        yield self.create_text_message("last words")
        os.close(1)
        time.sleep(60)

    def deed_raise(self, given: dict[str, Any]) -> Answer:
        """An exception of the plugin's own."""
        yield self.create_text_message("before")
        raise ValueError("boom")

    # ------------------------------------------------------------------ hangs

    def deed_freeze(self, given: dict[str, Any]) -> Answer:
        """The whole process stands still for some seconds."""
        yield self.create_text_message("frozen")
        # Again and again: where others burn the CPU, the first may come before the stop.
        script = f"while sleep {float(given['seconds'])} && kill -CONT {os.getpid()}; do :; done"
        waker = subprocess.Popen(["sh", "-c", script])
        os.kill(os.getpid(), signal.SIGSTOP)
        waker.kill()
        yield self.create_text_message("warm again")

    def deed_burn(self, given: dict[str, Any]) -> Answer:
        """Use a whole core and give no other session of this process a turn."""
        yield self.create_text_message("burning")
        end = time.perf_counter() + float(given["seconds"])
        while time.perf_counter() < end:
            sum(range(1000))
        yield self.create_text_message("cold")

    # ------------------------------------------------------------------ lines

    def deed_print(self, given: dict[str, Any]) -> Answer:
        """Print between the lines of the protocol."""
        for number in range(10):
            yield self.create_text_message(str(number))
            print("a line of print()", flush=True)

    def deed_glued(self, given: dict[str, Any]) -> Answer:
        """Print without a newline, so that text sticks to the next line."""
        for number in range(10):
            print("no newline ", end="", flush=True)
            yield self.create_text_message(str(number))

    def deed_bytes(self, given: dict[str, Any]) -> Answer:
        """Bytes that are no text, and JSON that is no message."""
        for number in range(10):
            yield self.create_text_message(str(number))
            _raw(b"\x00\xff\xfe\x1b[31m raw bytes\n[1, 2]\n{}\nnull\n")

    def deed_half_lines(self, given: dict[str, Any]) -> Answer:
        """A line in two halves with a pause between, and one byte by byte."""
        line = self._line("stream", _text("in halves"))
        _raw(line[:40])
        time.sleep(1)
        _raw(line[40:])
        for byte in self._line("stream", _text("byte by byte")):
            _raw(bytes([byte]))
        yield self.create_text_message("whole")

    def deed_long_line(self, given: dict[str, Any]) -> Answer:
        """One message of many megabytes."""
        yield self.create_text_message("y" * int(given["size"]))

    def deed_endless_line(self, given: dict[str, Any]) -> Answer:
        """A line that goes on for very long."""
        yield self.create_text_message("before")
        head = self._line("stream", _text("HERE"))
        _raw(head[: head.index(b"HERE")])
        for _ in range(int(given["size"]) >> 16):
            _raw(b"z" * 65536)
        _raw(b"\n")

    def deed_broken_line(self, given: dict[str, Any]) -> Answer:
        """A message that is cut off."""
        yield self.create_text_message("before")
        _raw(self._line("stream", _text("x"))[:-20] + b"\n")
        time.sleep(0.2)

    def deed_deep_line(self, given: dict[str, Any]) -> Answer:
        """A message nested ten thousand times."""
        yield self.create_text_message("before")
        text = self._line("stream", "DEEP")
        _raw(text.replace(b'"DEEP"', b"[" * 10000 + b"]" * 10000))
        time.sleep(0.2)

    def deed_unknown_type(self, given: dict[str, Any]) -> Answer:
        """A message of a type that there is not."""
        yield self.create_text_message("before")
        _raw(self._line("dance", {}))
        time.sleep(0.2)

    def deed_after_end(self, given: dict[str, Any]) -> Answer:
        """Two ends, and more after them."""
        yield self.create_text_message("before")
        _raw(self._line("end", {}) * 2 + self._line("stream", _text("after")))

    def deed_strangers(self, given: dict[str, Any]) -> Answer:
        """Messages for sessions that nobody has."""
        _raw(b'{"event":"party","session_id":"x","data":{}}\n')
        _raw(b'{"event":"session","session_id":"nobody","data":{"type":"stream","data":{}}}\n')
        yield self.create_text_message("still here")

    # ------------------------------------------------------------------ floods

    def deed_stdout_flood(self, given: dict[str, Any]) -> Answer:
        """Many short lines that are no messages."""
        yield self.create_text_message("before")
        for _ in range(int(given["size"]) >> 16):
            _raw((b"f" * 63 + b"\n") * 1024)
        yield self.create_text_message("after")

    def deed_stderr_flood(self, given: dict[str, Any]) -> Answer:
        """One line on stderr that does not end."""
        yield self.create_text_message("before")
        for _ in range(int(given["size"]) >> 16):
            os.write(2, b"e" * 65536)
        yield self.create_text_message("after")

    # ------------------------------------------------------------------ how

    def _line(self, type: str, data: Any) -> bytes:
        message = {"type": type, "data": data}
        event = {"event": "session", "session_id": self.session.session_id, "data": message}
        return json.dumps(event).encode() + b"\n"


def _raw(data: bytes) -> None:
    """Past the SDK, straight to standard output."""
    sys.stdout.flush()
    while data:
        data = data[os.write(1, data) :]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "message": {"text": text}, "meta": None}
