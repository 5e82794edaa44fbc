"""The TCP listener for developers, and the runtime that their plugins are to the host."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

import gevent
from gevent import socket as gsocket
from gevent.pool import Group

from tidegate.backcalls import Target
from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import StorageUnavailable
from tidegate.hosts.admission import Admission as SessionAdmission
from tidegate.hosts.debugging.admission import Admission, Limits
from tidegate.hosts.debugging.connection import Connection, Workshop
from tidegate.hosts.debugging.directory import Directory
from tidegate.hosts.debugging.elsewhere import Elsewhere
from tidegate.hosts.debugging.instance import DebugInstance
from tidegate.hosts.neighbours import address_of, owner_of
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.runtimes import Operation
from tidegate.hosts.status import status_elsewhere
from tidegate.ids import is_uuid
from tidegate.link import ServerCall
from tidegate.runtime.keepalive import keep_alive
from tidegate.runtime.listening import accepted, listen
from tidegate.settings import Settings
from tidegate.storage import Database
from tidegate.storage.blobs import BlobStore
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead

log = get_log("hosts")

#: Seconds between the tries to bind.
_BIND_AGAIN: Final = (2.0, 4.0)
#: After which a developer's machine that went without a word is noticed. At a breakpoint its kernel
#: still answers.
_SILENT_SECONDS: Final = 60.0


@final
class Debugging:
    """A :class:`tidegate.hosts.runtimes.Runtime`. Made by the host's entry file."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        target: Target,
        *,
        log_of: Callable[[str], PluginLog],
        notify: Callable[[bytes], None],
        sessions: SessionAdmission | None = None,
        limits: Limits | None = None,
        address: str = "",
    ) -> None:
        """``log_of`` gives a plugin's log, ``notify`` tells every peer of the link; ``sessions``
        are those of all tenants on this host; ``address`` of its link, for other hosts."""
        self._settings = settings
        limits = limits or Limits(
            connections=settings.plugin_remote_installing_max_conn,
            per_tenant=settings.plugin_remote_installing_max_single_tenant_conn,
        )
        self.admission = Admission(limits)
        owner = owner_of(settings)
        self.directory = Directory(database, owner, address or address_of(settings), notify)
        #: The way to plugins that are connected at other hosts; used by ``PluginHost``.
        self.elsewhere = Elsewhere(settings, database, owner)
        self._workshop = Workshop(
            settings,
            database,
            blobs,
            target,
            self.directory,
            self.admission,
            sessions or SessionAdmission(settings.tidegate_tenant_sessions),
            limits,
            log_of,
        )
        self._listener: Any = None
        self._own = Group()
        self._serving = Group()
        self._connections: set[Connection] = set()

    # ------------------------------------------------------------------ Runtime

    @property
    def operations(self) -> Mapping[str, Operation]:
        """It has none of its own."""
        return {}

    def start(self) -> None:
        """Listen, if that is switched on. An address that cannot be had is a line in the log."""
        try:
            self.directory.sweep()
        except StorageUnavailable as error:
            log.error("debugging rows of an earlier run stay", error=error.message)
        if self._settings.plugin_remote_installing_enabled:
            self._own.spawn(self._listen)
            self._own.spawn(self.directory.keep_alive)

    def opened(self, call: ServerCall) -> bool:
        """Take a call whose version is connected here."""
        head = call.head
        if not isinstance(head, PluginHead):
            return False
        instance = self.directory.find(head.plugin)
        if instance is None or not _is_same(instance.tenant, head.tenant) or not instance.usable:
            return False
        if not instance.entrance.admit(call):
            instance.entrance.wait(call, crowded=True)
        return True

    def status(self) -> Iterable[dict[str, Any]]:
        """One dict per connected plugin."""
        return [_status(one) for one in self.directory.instances]

    def stop(self, grace: float) -> None:
        """No more connections; open calls get ``grace`` seconds, then everybody is hung up on."""
        # Who still tries to bind must not succeed while calls are waited for.
        self._own.kill()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        drains = [self.elsewhere.drain, *(one.drain for one in self.directory.instances)]
        gevent.joinall([gevent.spawn(drain, grace) for drain in drains])
        for connection in list(self._connections):
            connection.hang_up()
        # They write rows on their way out; what is not written now is put back at the next start.
        self._serving.join(timeout=5)
        self._serving.kill()
        self.directory.close()
        self.elsewhere.close()

    # ------------------------------------------------------------------ listening

    @property
    def port(self) -> int:
        """Port of the listener; 0 while there is none."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    def _listen(self) -> None:
        host = self._settings.plugin_remote_installing_host or "127.0.0.1"
        port = self._settings.plugin_remote_installing_port
        # A host that was just stopped may still hold it; the link must not wait for that.
        for wait in (*_BIND_AGAIN, None):
            try:
                self._listener = _bind(host, port)
                break
            except OSError as error:
                if wait is None:
                    log.error(
                        "no debugging: cannot listen; see PLUGIN_REMOTE_INSTALLING_HOST and _PORT",
                        address=f"{host}:{port}",
                        error=error.strerror or str(error),
                    )
                    return
                gevent.sleep(wait)
        log.info("debugging listens", address=f"{host}:{self.port}")
        self._accept()

    def _accept(self) -> None:
        for sock, address in accepted(self._listener, "debugging"):
            self._serving.spawn(self._serve, Connection(self._workshop, sock, address))

    def _serve(self, connection: Connection) -> None:
        self._connections.add(connection)
        try:
            connection.run()
        except Exception:
            log.exception("debugging connection failed")
        finally:
            self._connections.discard(connection)


def _is_same(tenant: str, asking: str) -> bool:
    """Whether both are one tenant, in whatever form the caller writes it."""
    if tenant == asking:
        return True
    # Dify writes ids with and without dashes; both are one tenant.
    return is_uuid(asking) and uuid.UUID(tenant) == uuid.UUID(asking)


def _bind(host: str, port: int) -> gsocket.socket:
    listener = listen(host, port)
    # As the keep-alive, handed on to what is accepted: messages are whole when they are written.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(listener, _SILENT_SECONDS)
    return listener


def _status(instance: DebugInstance) -> dict[str, Any]:
    return {
        **status_elsewhere(instance.identifier, "remote", instance.entrance),
        "tenant": instance.tenant,
        "starts": 1,
        "instances": [
            {
                "pid": 0,
                "state": instance.state.value,
                "sessions": instance.load,
                "served": instance.table.served,
                "uptime": round(SYSTEM_CLOCK.monotonic() - instance.started_at, 3),
                "ready_after": 0.0,
                "memory_bytes": 0,
            }
        ],
    }
