"""The host's end of the link: who listens, and who may connect.

Each process that connects is a :class:`~tidegate.link.peer.Peer`; what it opens are
:class:`~tidegate.link.server_call.ServerCall`.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import gevent
from gevent import socket as gsocket

from tidegate.errors import StartRefused
from tidegate.link import handshake
from tidegate.link.peer import Handler, Peer
from tidegate.runtime.listening import accepted, listen
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.sparing import Sparing
from tidegate.wire.frames import Kind, encode

log = get_log("link")

#: Connections of one listener that have not proved themselves. Beyond them they are closed: whoever
#: reaches the port must not be able to take the descriptors that plugins are started with.
MOST_STRANGERS: Final = 128
_HIGHEST_PORT: Final = 65535


@final
class LinkServer:
    """Listens for api and worker processes. Made and started by ``host_entrypoint``."""

    def __init__(
        self,
        handler: Handler,
        *,
        key: bytes,
        path: Path,
        tcp: str = "",
        call_budget: int = 8 << 20,
    ) -> None:
        self.handler = handler
        self.call_budget = call_budget
        self.late_frames = 0
        self._key = key
        self._path = path
        self._tcp = tcp
        self._listeners: list[gsocket.socket] = []
        self._greenlets: set[gevent.Greenlet] = set()
        self._peers: set[Peer] = set()
        self._strangers: Counter[gsocket.socket] = Counter()
        #: For what anybody who reaches the port can make the log say.
        self._sparing = Sparing()

    def start(self) -> None:
        """Bind and accept. StartRefused with one line when an address cannot be had."""
        self._listeners.append(self._bind_unix())
        try:
            if self._tcp:
                self._listeners.append(self._bind_tcp())
        except StartRefused:
            self.stop()
            raise
        for listener in self._listeners:
            self._spawn(self._accept, listener)

    def stop(self) -> None:
        """Close the listeners and every connection (their calls are cancelled)."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for peer in list(self._peers):
            peer.close()
        gevent.killall(list(self._greenlets), timeout=2)
        self._path.unlink(missing_ok=True)

    def notify(self, body: bytes) -> None:
        """Tell every connected peer something (a NOTICE frame)."""
        parts = encode(Kind.NOTICE, 0, body)
        for peer in list(self._peers):
            # A list for each: an outbox keeps what it is given while its socket is full.
            peer.outbox.write(list(parts))

    @property
    def connections(self) -> int:
        """Peers that are connected now."""
        return len(self._peers)

    @property
    def tcp_port(self) -> int:
        """Port of the TCP listener (for port 0 in tests)."""
        return int(self._listeners[-1].getsockname()[1])

    def forget(self, peer: Peer) -> None:
        """It is gone. Called by it."""
        self._peers.discard(peer)

    def _spawn(self, function: Callable[..., None], *arguments: object) -> None:
        greenlet = gevent.spawn(function, *arguments)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)

    def _bind_unix(self) -> gsocket.socket:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Asked, not told by the file: a host that was killed leaves its socket behind.
        if self._path.exists() and _answers(self._path):
            raise StartRefused(
                f"a host already serves {self._path}: stop it, or set another TIDEGATE_HOME"
            )
        self._path.unlink(missing_ok=True)
        listener = gsocket.socket(socket.AF_UNIX)
        # Not by chmod afterwards: between the two anybody could connect.
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
            listener.listen(256)
        except OSError as error:
            listener.close()
            raise StartRefused(f"cannot listen on {self._path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        return listener

    def _bind_tcp(self) -> gsocket.socket:
        host, _, port = self._tcp.rpartition(":")
        if not port.isdigit() or int(port) > _HIGHEST_PORT:
            raise StartRefused(f"TIDEGATE_LINK_TCP takes host:port, not {self._tcp!r}")
        try:
            return listen(host or "127.0.0.1", int(port))
        except OSError as error:
            raise StartRefused(f"cannot listen on {self._tcp}: {error.strerror}") from error

    def _accept(self, listener: gsocket.socket) -> None:
        for sock, _ in accepted(listener, "link"):
            if self._strangers[listener] >= MOST_STRANGERS:
                sock.close()
                self._refused(f"{MOST_STRANGERS} others have not proved themselves yet")
                continue
            self._strangers[listener] += 1
            self._spawn(self._serve, sock, listener)

    def _serve(self, sock: gsocket.socket, listener: gsocket.socket) -> None:
        try:
            handshake.widen(sock)
            handshake.accept(sock, self._key)
        except (OSError, TimeoutError) as error:
            sock.close()
            self._refused(str(error))
            return
        finally:
            self._strangers[listener] -= 1
        peer = Peer(self, sock)
        self._peers.add(peer)
        peer.run()

    def _refused(self, reason: str) -> None:
        unsaid = self._sparing.ask()
        if unsaid is not None:
            log.warning("link connection refused", error=reason, unsaid=unsaid)


def _answers(path: Path) -> bool:
    """Whether somebody accepts connections on this socket, or it was left by a dead host."""
    probe = gsocket.socket(socket.AF_UNIX)
    try:
        probe.connect(str(path))
    except OSError:
        return False
    finally:
        probe.close()
    return True
