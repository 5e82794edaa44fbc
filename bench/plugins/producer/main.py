"""A plugin without the SDK that costs next to nothing per chunk: what is measured is its host.

``tool_parameters``: {"count": chunks, "size": bytes of text in each} as fast as possible;
"rate": chunks per second, each with the monotonic clock in it; "hold": one chunk, then silence.
"""

import json
import os
import select
import sys
import time

BLOCK = 64 << 10


class Session:
    def __init__(self, session_id, parameters):
        self.session_id = session_id
        self.left = int(parameters.get("count", 1))
        self.rate = float(parameters.get("rate", 0))
        self.hold = bool(parameters.get("hold", False))
        self.due = time.monotonic()
        self.line = self._line("x" * int(parameters.get("size", 100)))
        self.per_block = max(1, BLOCK // len(self.line))

    def _line(self, text):
        message = {"type": "text", "message": {"text": text}, "meta": None}
        return self._event("stream", message)

    def _event(self, kind, data):
        event = {
            "event": "session",
            "session_id": self.session_id,
            "data": {"type": kind, "data": data},
        }
        return json.dumps(event, separators=(",", ":")).encode() + b"\n"

    def more(self, now):
        """The next bytes, and whether this was all."""
        if self.hold:
            return self.line, self.left == 0
        if self.rate:
            if now < self.due:
                return b"", False
            self.due += 1 / self.rate
            number = 1
            data = self._line(str(time.monotonic_ns()))
        else:
            number = min(self.left, self.per_block)
            data = self.line * number
        self.left -= number
        if self.left <= 0:
            return data + self._event("end", {}), True
        return data, False


def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main():
    write(b'{"event":"heartbeat","session_id":"","data":{}}\n')
    sessions, rest, beat = [], b"", time.monotonic()
    while True:
        now = time.monotonic()
        wait = 5.0
        if any(not one.rate for one in sessions):
            wait = 0
        elif sessions:
            wait = max(0.0, min(one.due for one in sessions) - now)
        if select.select([0], [], [], wait)[0]:
            data = os.read(0, 1 << 20)
            if not data:
                return 0
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                add(sessions, json.loads(line))
        now = time.monotonic()
        if now - beat > 10:
            beat = now
            write(b'{"event":"heartbeat","session_id":"","data":{}}\n')
        out, left = [], []
        for one in sessions:
            data, done = one.more(now)
            out.append(data)
            if not done and not one.hold:
                left.append(one)
        sessions = left
        if out:
            write(b"".join(out))


def add(sessions, message):
    if message.get("event") == "request" and "tool_parameters" in message["data"]:
        sessions.append(Session(message["session_id"], message["data"]["tool_parameters"]))


if __name__ == "__main__":
    sys.exit(main())
