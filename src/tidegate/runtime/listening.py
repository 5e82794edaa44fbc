"""TCP listeners of a host: how they are opened, and who comes in by one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import gevent
from gevent import socket as gsocket

from tidegate.telemetry.logs import get_log

log = get_log("listening")


def listen(host: str, port: int) -> gsocket.socket:
    """A listener, of IPv6 where ``host`` is, in brackets or not. OSError when it cannot be had."""
    listener = gsocket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(256)  # two may bind with SO_REUSEADDR, only one may listen
    except OSError:
        listener.close()
        raise
    return listener


def accepted(listener: gsocket.socket, name: str) -> Iterator[tuple[gsocket.socket, str]]:
    """Who comes in by ``listener``, and from which address, until it is closed."""
    while True:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if listener.closed or error.errno == errno.EBADF:
                return
            # Out of descriptors: wait until some come free, then go on accepting.
            log.error("cannot accept connections", listener=name, error=str(error))
            gevent.sleep(0.5)
            continue
        yield sock, str(address[0]) if address else ""
