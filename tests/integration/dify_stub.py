"""A Dify that encrypts settings of endpoints, for tests: its own HTTP server in this process.

Ciphers are readable (``sealed:`` and the text backwards), so that a test sees what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer


class Dify:
    """What was asked, and how the next question is answered."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.broken = False
        #: While cleared, it has no greenlet left for us: all of them wait for our answers.
        self.free = Event()
        self.free.set()
        self.url = ""

    def ops(self) -> list[str]:
        return [body["opt"] for body in self.asked]

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        body = json.loads(environ["wsgi.input"].read())
        self.asked.append(body)
        self.free.wait()
        if self.broken:
            start_response("500 Internal Server Error", [("Connection", "close")])
            return [b"no"]
        secrets = {one["name"] for one in body["config"] if one["type"] == "secret-input"}
        change = {"encrypt": sealed, "decrypt": opened}.get(body["opt"], str)
        data = {
            name: change(value) if name in secrets else value
            for name, value in body["data"].items()
        }
        # no connection is kept: none is left behind by a test
        headers = [("Content-Type", "application/json"), ("Connection", "close")]
        start_response("200 OK", headers)
        return [json.dumps({"data": {"data": data}, "error": ""}).encode()]


def sealed(text: str) -> str:
    return "sealed:" + text[::-1]


def opened(text: str) -> str:
    assert text.startswith("sealed:"), text
    return text.removeprefix("sealed:")[::-1]


@contextmanager
def dify_stub() -> Iterator[Dify]:
    """A served one."""
    dify = Dify()
    pool = Pool()
    server = WSGIServer(("127.0.0.1", 0), dify, log=None, error_log=None, spawn=pool)
    server.start()
    dify.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield dify
    finally:
        server.stop(timeout=1)
        pool.kill()
