"""TCP's own question whether a client is still there, for connections on which nothing moves.

What is on its way to a client that vanished is seen to by ``api/silence.py``.
"""

from __future__ import annotations

import socket
from typing import Any, Final

_PROBES: Final = 3


def keep_alive(listener: Any, seconds: float) -> None:
    """Connections accepted on ``listener`` from now on end when their client is silent so long.

    Linux hands the options on to what is accepted. Called once per api worker; a unix socket's
    clients cannot be silent.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    every = max(1, int(seconds / 2 / _PROBES))
    first = max(1, int(seconds) - _PROBES * every)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, first)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
