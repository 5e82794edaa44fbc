"""One connection of a debugging developer, from accept to the end.

    registration (wire/debugging), 10 s for the key, 60 s for the rest
      refused: one line of text, half-close, read on for a moment, close
      complete: DebugInstance, rows, and from then on the lines of wire/session

Closing while the SDK is still sending would reset the connection, and the developer would read
"connection reset" instead of the reason: so what he sends is read and thrown away for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, final

import gevent
from gevent import get_hub, socket

from tidegate.backcalls import Target
from tidegate.clock import GIVE_WAY, SYSTEM_CLOCK
from tidegate.errors import RegistrationRefused, StorageUnavailable
from tidegate.hosts.admission import Admission as SessionAdmission
from tidegate.hosts.debugging.admission import Admission, Limits, Visit
from tidegate.hosts.debugging.directory import Directory
from tidegate.hosts.debugging.instance import DebugInstance
from tidegate.hosts.plugin_log import PluginLog
from tidegate.ids import plugin_id_of
from tidegate.packages import Registered, register
from tidegate.settings import Settings
from tidegate.storage import Database, debug_keys
from tidegate.storage.blobs import BlobStore, Layout
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.sparing import Sparing
from tidegate.wire.debugging import Registration, Stage, refusal_line

log = get_log("hosts")

_READ: Final = 1 << 16
_DRAINED_AT_MOST: Final = 64 << 20
_GONE: Final = (OSError, EOFError)
#: For the lines of refusals: whoever reaches the port can cause as many as he likes.
_sparing = Sparing()


@final
@dataclass(frozen=True, slots=True)
class Workshop:
    """What every connection works with. Made once by the listener."""

    settings: Settings
    database: Database
    blobs: BlobStore
    target: Target
    directory: Directory
    admission: Admission
    sessions: SessionAdmission
    limits: Limits
    log_of: Callable[[str], PluginLog]


@final
class Connection:
    """Serves one accepted socket. :meth:`run` is the body of its greenlet; it closes the socket."""

    def __init__(self, workshop: Workshop, sock: socket.socket, address: str) -> None:
        self._workshop = workshop
        self._sock = sock
        self._address = address
        self._registration = Registration()
        self._tenant = ""

    def run(self) -> None:
        """Registration, then the plugin's life."""
        try:
            # Around everything: the caps hold for what is refused and drained, too.
            with self._workshop.admission.connection(self._address) as visit:
                self._live(visit)
        except RegistrationRefused as error:
            self._refuse(error)
        except _GONE as error:
            log.debug("debugging connection lost", address=self._address, error=str(error))
        finally:
            self._sock.close()

    def hang_up(self) -> None:
        """End it; :meth:`run` does the rest. Never waits."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------ registration

    def _live(self, visit: Visit) -> None:
        limits = self._workshop.limits
        # Ten seconds and 4 KiB: nobody has shown anything yet.
        self._read_until(Stage.KEY_GIVEN, limits.handshake, "no key came")
        self._tenant = self._tenant_of_key()
        # From here on it counts in its tenant's cap, and no longer among its address's strangers.
        visit.known()
        self._registration.admit()
        self._read_until(Stage.COMPLETE, limits.registration, "the registration did not end")
        registered = self._registered()
        with self._workshop.directory.seat(self._tenant, limits.per_tenant):
            instance = self._instance(registered)
            # A developer may be silent for days.
            self._sock.settimeout(None)
            self._take_part(instance, registered)

    def _read_until(self, wanted: Stage, seconds: float, what: str) -> None:
        """Feed the registration until it is there. EOFError when the connection ends before."""
        end = SYSTEM_CLOCK.monotonic() + seconds
        while self._registration.advance() is not wanted:
            left = end - SYSTEM_CLOCK.monotonic()
            try:
                self._sock.settimeout(max(0.001, left))
                data = self._sock.recv(_READ) if left > 0 else None
            except TimeoutError:
                data = None
            if data is None:
                raise RegistrationRefused(f"handshake failed, {what} within {seconds:g} seconds")
            if not data:
                raise EOFError("it ended before the registration did")
            self._registration.feed(data)
            gevent.sleep(GIVE_WAY)  # a fast sender must not keep the others waiting

    def _tenant_of_key(self) -> str:
        workshop, key = self._workshop, self._registration.key
        workshop.admission.check_key(self._address, key)
        try:
            with workshop.database.read() as conn:
                tenant = debug_keys.tenant_of(conn, key)
        except StorageUnavailable as error:
            raise RegistrationRefused(f"failed to get connection info: {error.message}") from None
        if tenant is None:
            workshop.admission.key_refused(self._address, key)
        return tenant

    def _registered(self) -> Registered:
        registration = self._registration
        assert registration.manifest is not None  # noqa: S101 - it is complete
        work = (registration.manifest, registration.providers, registration.assets, self._tenant)
        # Computation of up to seconds: not in the hub's thread.
        outcome = get_hub().threadpool.apply(_register_or_error, work)
        # Up to a hundred MB that nobody needs for the days that a developer stays connected.
        registration.assets = {}
        registration.providers = {}
        if isinstance(outcome, RegistrationRefused):
            raise outcome
        registered: Registered = outcome
        return registered

    def _instance(self, registered: Registered) -> DebugInstance:
        workshop = self._workshop
        permission: Any = registered.declaration["resource"].get("permission") or {}
        return DebugInstance(
            self._sock,
            self._tenant,
            str(registered.identifier),
            permission,
            workshop.settings.for_plugin(registered.identifier.plugin_id),
            workshop.log_of(registered.identifier.plugin_id),
            workshop.target,
            workshop.sessions,
        )

    # ------------------------------------------------------------------ the plugin's life

    def _take_part(self, instance: DebugInstance, registered: Registered) -> None:
        # Before the rows are there: the SDK talks at once, and what it says is not to pile up.
        instance.start()
        began = gevent.spawn(instance.run, self._registration.rest)
        try:
            if self._announce(instance, registered):
                began.join()
        finally:
            # Whatever ended this: the reader must be over before the rows say that it is gone.
            instance.hang_up()
            began.join()
            self._workshop.directory.remove(instance)
            # A developer names his plugins as he likes: each name has a log, and that a file.
            self._workshop.log_of(plugin_id_of(instance.identifier)).close()
            log.info("debugged plugin disconnected", plugin=instance.identifier)

    def _announce(self, instance: DebugInstance, registered: Registered) -> bool:
        """Icons and rows; False when they could not be kept, which the developer has been told."""
        workshop = self._workshop
        layout = Layout(workshop.settings)
        try:
            for name, content in registered.icons.items():
                # By the name, which is its digest: a restart of the SDK writes nothing.
                if not workshop.blobs.exists(layout.asset(name)):
                    workshop.blobs.save(layout.asset(name), content)
            workshop.directory.add(instance, registered.text)
        except StorageUnavailable as error:
            self._say(refusal_line(RegistrationRefused(f"register failed, {error.message}")))
            return False
        log.info("debugged plugin connected", plugin=instance.identifier, tenant=self._tenant)
        return True

    # ------------------------------------------------------------------ refusal

    def _refuse(self, error: RegistrationRefused) -> None:
        unsaid = _sparing.ask()
        if unsaid is not None:
            log.warning(
                "debugging registration refused",
                address=self._address,
                reason=error.message,
                unsaid=unsaid,
            )
        self._say(refusal_line(error))
        end = SYSTEM_CLOCK.monotonic() + self._workshop.limits.drain
        drained = 0
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while drained < _DRAINED_AT_MOST and (left := end - SYSTEM_CLOCK.monotonic()) > 0:
                self._sock.settimeout(left)
                data = self._sock.recv(_READ)
                if not data:
                    return
                drained += len(data)
                gevent.sleep(GIVE_WAY)

    def _say(self, line: bytes) -> None:
        with suppress(OSError):
            self._sock.settimeout(1.0)
            self._sock.sendall(line)


def _register_or_error(
    manifest: bytes, providers: dict[str, bytes], assets: dict[str, bytes], tenant: str
) -> Registered | RegistrationRefused:
    """A refusal is returned: gevent prints what its threads raise."""
    try:
        return register(manifest, providers, assets, tenant)
    except RegistrationRefused as error:
        return error
