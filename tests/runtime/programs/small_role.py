"""A role for the supervisor's tests, with nothing behind it: ``small_role.py NAME``.

Serves as the supervisor's probes expect. ``SMALL_<NAME>`` makes it ill: ``refuse``, ``dies``
(before it serves), ``die_ready`` (just after, every time), ``deaf`` (ignores SIGTERM), ``orphan``
(leaves a child in a session of its own).
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

name = sys.argv[1]
illness = os.environ.get(f"SMALL_{name.upper()}", "")
run = Path(os.environ["TIDEGATE_HOME"]) / "run"


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


print(f"{name} starts", flush=True)
if illness == "refuse":
    print(f"tidegate: {name} is not possible here: do something", flush=True)
    print("what runs it says more", flush=True)
    sys.exit(78)
if illness == "dies":
    sys.exit(3)
if illness == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (print(f"{name} stops", flush=True), os._exit(0)))
if illness == "orphan":
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(f"orphan {child.pid}", flush=True)
if name != "api":
    (run / f"{name}.json").write_text(json.dumps({"pid": os.getpid()}))
if illness == "die_ready":
    signal.alarm(1)
if name == "api":
    address = ("127.0.0.1", int(os.environ["SERVER_PORT"]))
    http.server.ThreadingHTTPServer(address, _Health).serve_forever()
while True:
    signal.pause()
