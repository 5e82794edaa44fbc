"""Gunicorn's gevent worker around an application, in this process, for tests.

    with served(application) as address:      # ("127.0.0.1", port)
        http.client.HTTPConnection(*address)

The connection handling is gunicorn's own - parser, keep-alive, ``gunicorn.socket`` - without its
master and its fork, so that a test sees sockets and objects at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker


@contextmanager
def served(application: Callable[..., Any], *, keepalive: int = 5) -> Iterator[tuple[str, int]]:
    """Serve ``application`` until the block ends; the address to connect to."""
    config = Config()
    config.set("keepalive", keepalive)
    config.set("loglevel", "critical")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    worker = GeventWorker(0, os.getpid(), [listener], None, 30, config, Logger(config))
    worker.wsgi = application
    pool = Pool()
    # Not the worker's own loop: it would watch a master that is not there.
    server = StreamServer(listener, handle=partial(worker.handle, listener), spawn=pool)
    server.start()
    try:
        yield listener.getsockname()
    finally:
        server.stop(timeout=1)
        listener.close()
        worker.tmp.close()
