"""A small WSGI application for Gunicorn with our configuration: shows what the process is like.

What the api does with its streams is tested with the api; this one only needs what the runtime
gives: patches, the drain, the worker's loop.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

import gevent
from gevent.event import Event

from tidegate.runtime import boot
from tidegate.runtime.fingerprint import fingerprint

SILENCE: list[float] = []


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """One function per path below."""
    query = {key: value[0] for key, value in parse_qs(environ["QUERY_STRING"]).items()}
    answer = _PATHS[environ["PATH_INFO"]](query)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return answer if isinstance(answer, Iterator) else [json.dumps(answer).encode()]


def _state(query: dict[str, str]) -> Any:
    return fingerprint("api")


def _stream(query: dict[str, str]) -> Iterator[bytes]:
    """Chunks until the count is reached; a last word when the role stops first."""
    told = Event()
    unregister = boot.DRAIN.on_begin(lambda seconds: gevent.spawn_later(seconds, told.set))
    try:
        for number in range(int(query["chunks"])):
            yield f"chunk {number}\n".encode()
            if told.wait(float(query["every"])):
                yield b"stopped\n"
                return
        yield b"complete\n"
    finally:
        unregister()


def _postgres(query: dict[str, str]) -> Any:
    """Seconds for six sleeps of half a second, and the longest silence of a ticker beside them."""
    import psycopg2

    connections = [psycopg2.connect(query["dsn"]) for _ in range(6)]
    try:
        return _measured(lambda one: one.cursor().execute("SELECT pg_sleep(0.5)"), connections)
    finally:
        for one in connections:
            one.close()


def _grpc(query: dict[str, str]) -> Any:
    """The same for five calls of a second, from greenlets or from an executor."""
    import grpc

    with grpc.insecure_channel(query["address"]) as channel:
        call = channel.unary_unary("/probe/Sleep")
        call(b"0", timeout=10)
        seconds = [query["seconds"].encode()] * int(query["count"])
        if query.get("executor"):
            with ThreadPoolExecutor(20) as pool:
                return _measured(
                    lambda _: list(pool.map(lambda one: call(one, timeout=30), seconds)), [None]
                )
        return _measured(lambda one: call(one, timeout=30), seconds)


def _https(query: dict[str, str]) -> Any:
    """Ten requests to a TLS server of our own, as an application would make them."""
    import urllib.request

    context = ssl.create_default_context(cafile=query["ca"])
    return [
        urllib.request.urlopen(query["url"], context=context, timeout=5).status for _ in range(10)
    ]


def _mixed(query: dict[str, str]) -> Any:
    """What an application does besides: names, files, processes, threads, contexts, timers."""
    import contextvars
    import socket
    import subprocess
    import tempfile
    import threading
    import weakref

    number = query["n"]
    value = contextvars.ContextVar("value", default="")
    context = contextvars.copy_context()
    context.run(value.set, number)
    socket.getaddrinfo("localhost", 80)
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 4096)
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()
    ended: list[int] = []
    weakref.finalize(_Thing(), ended.append, 1)
    done = subprocess.run(["/bin/echo", number], capture_output=True, check=True)
    return [done.stdout.decode().strip(), context[value], ended]


def _silence(query: dict[str, str]) -> Any:
    """The longest time since the last question in which a ticker did not get its turn."""
    worst, SILENCE[:] = max(SILENCE, default=0.0), []
    return worst


class _Thing:
    """Something to finalize."""


def _measured(work: Any, items: list[Any]) -> dict[str, float]:
    silence: list[float] = []
    ticker = gevent.spawn(_tick, silence)
    began = time.monotonic()
    gevent.joinall([gevent.spawn(work, one) for one in items], raise_error=True)
    took = time.monotonic() - began
    ticker.kill()
    return {"took": took, "silence": max(silence, default=took)}


def _tick(silence: list[float]) -> None:
    last = time.monotonic()
    while True:
        gevent.sleep(0.01)
        now = time.monotonic()
        silence.append(now - last)
        last = now


_PATHS = {
    "/state": _state,
    "/stream": _stream,
    "/postgres": _postgres,
    "/grpc": _grpc,
    "/https": _https,
    "/mixed": _mixed,
    "/silence": _silence,
}
gevent.spawn(_tick, SILENCE)
