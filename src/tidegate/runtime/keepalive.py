"""TCP's own question whether the other end is still there, where nothing moves.

What is on its way to a client that vanished is seen to by ``api/silence.py``.
"""

from __future__ import annotations

import socket
from typing import Any, Final

_PROBES: Final = 3


def keep_alive(sock: Any, seconds: float) -> None:
    """``sock`` ends when the other end answers nothing for so long; so does what it accepts.

    Linux hands the options of a listener on to what is accepted. A process that is stopped is not
    silent, its kernel answers; nor can a unix socket's other end be.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    every = max(1, int(seconds / 2 / _PROBES))
    first = max(1, int(seconds) - _PROBES * every)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, first)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
