"""Who may speak over the link: a challenge in both directions (HMAC-SHA256).

    server -> client   magic (8) + server nonce (32)
    client -> server   client nonce (32) + HMAC(key, "client" + server nonce + client nonce)
    server -> client   HMAC(key, "server" + client nonce + server nonce)

Whoever reaches the link can run code on the host, so a TCP link needs the key that both sides
derive from SERVER_KEY; the unix socket is asked for it as well, which costs a millisecond once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from typing import Final

from tidegate.clock import SYSTEM_CLOCK
from tidegate.runtime.keepalive import keep_alive

MAGIC: Final = b"TIDEGT01"
_NONCE: Final = 32
_DIGEST: Final = 32
#: Seconds in which the other side must have proved itself, all in all.
LIMIT: Final = 5.0
#: Seconds after which a machine that went without a word is noticed. The kernel would take hours.
_SILENT: Final = 60.0
_now = SYSTEM_CLOCK.monotonic


class HandshakeFailed(ConnectionError):
    """The other side is not ours, or has another key."""


def _proof(key: bytes, side: bytes, first: bytes, second: bytes) -> bytes:
    # The side is part of it: else a client could be sent its own answer back as the server's.
    return hmac.new(key, side + first + second, hashlib.sha256).digest()


def _receive(sock: socket.socket, size: int, end: float) -> bytes:
    data = b""
    while len(data) < size:
        # Of the whole, not of each piece: a byte every four seconds would hold it for minutes.
        sock.settimeout(max(0.001, end - _now()))
        piece = sock.recv(size - len(data))
        if not piece:
            raise HandshakeFailed("the connection was closed during the handshake")
        data += piece
    return data


def accept(sock: socket.socket, key: bytes) -> None:
    """The server's part. HandshakeFailed or TimeoutError when the client lacks the key."""
    end = _now() + LIMIT
    sock.settimeout(LIMIT)
    server_nonce = os.urandom(_NONCE)
    sock.sendall(MAGIC + server_nonce)
    answer = _receive(sock, _NONCE + _DIGEST, end)
    client_nonce, proof = answer[:_NONCE], answer[_NONCE:]
    if not hmac.compare_digest(proof, _proof(key, b"client", server_nonce, client_nonce)):
        raise HandshakeFailed("a client with another key was turned away")
    sock.sendall(_proof(key, b"server", client_nonce, server_nonce))
    sock.settimeout(None)


def connect(sock: socket.socket, key: bytes) -> None:
    """The client's part. HandshakeFailed (or TimeoutError) when the server is not ours."""
    end = _now() + LIMIT
    hello = _receive(sock, len(MAGIC) + _NONCE, end)
    # A version of its own for the whole protocol: after an upgrade of one role only, the line in
    # the log names the reason instead of a frame that cannot be read.
    if not hello.startswith(MAGIC):
        raise HandshakeFailed("what listens there is no Tidegate host of this version")
    server_nonce = hello[len(MAGIC) :]
    client_nonce = os.urandom(_NONCE)
    sock.sendall(client_nonce + _proof(key, b"client", server_nonce, client_nonce))
    answer = _receive(sock, _DIGEST, end)
    if not hmac.compare_digest(answer, _proof(key, b"server", client_nonce, server_nonce)):
        raise HandshakeFailed("the host has another SERVER_KEY")
    sock.settimeout(None)


def widen(sock: socket.socket) -> None:
    """1 MiB socket buffers: with the kernel's default, 64 KB messages cost three times as much."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    if sock.family != socket.AF_UNIX:
        # Frames are joined by us, once a turn: to wait for more would only be waiting.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock, _SILENT)
