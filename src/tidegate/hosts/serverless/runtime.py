"""Serverless as a runtime of the host: every call of a plugin is a request to its function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, final

import gevent
import msgspec
from gevent.lock import BoundedSemaphore
from gevent.pool import Group

from tidegate.backcalls import Target
from tidegate.environments import Progress
from tidegate.errors import (
    CallFailed,
    ConnectorFailed,
    HostLost,
    InstallFailed,
    InvalidIdentifier,
    PluginStartFailed,
    SessionOver,
    StorageUnavailable,
)
from tidegate.hosts.admission import Admission
from tidegate.hosts.entrance import Entrance
from tidegate.hosts.neighbours import Neighbours
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.runtimes import Operation, reporter, tell
from tidegate.hosts.serverless.connector import Connector
from tidegate.hosts.serverless.functions import Functions, Known
from tidegate.hosts.serverless.invocation import Invocation
from tidegate.hosts.serverless.places import Places
from tidegate.hosts.serverless.transactions import Transactions
from tidegate.hosts.status import status_elsewhere
from tidegate.ids import PluginIdentifier, plugin_id_of
from tidegate.link import ServerCall
from tidegate.runtime.http_pool import HttpPool
from tidegate.settings import Settings
from tidegate.storage import Database, generation
from tidegate.telemetry.logs import get_log
from tidegate.wire.connector import Function
from tidegate.wire.heads import HostHead, PluginHead

log = get_log("hosts")

_NOT_KEPT: Final = "failed to persist serverless runtime"


@final
class Serverless:
    """A :class:`tidegate.hosts.runtimes.Runtime`. Made by the host's entry file."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        target: Target,
        *,
        package_of: Callable[[str], bytes],
        log_of: Callable[[str], PluginLog],
        notify: Callable[[bytes], None],
        sessions: Admission | None = None,
    ) -> None:
        """``package_of`` loads an uploaded package, ``log_of`` gives a plugin's log, ``notify``
        tells every peer of the link; ``sessions`` are those of all tenants on this host."""
        self._settings = settings
        self._database = database
        self._package_of = package_of
        self._log_of = log_of
        self._notify = notify
        self._places = Places(settings)
        self._neighbours = Neighbours(settings)
        self._pool = HttpPool()
        self._connector = Connector(settings, self._pool)
        self._functions = Functions(database)
        self._transactions = Transactions(
            target, float(settings.max_serverless_transaction_timeout)
        )
        self._sessions = sessions or Admission(settings.tidegate_tenant_sessions)
        self._invocations: dict[str, Invocation] = {}
        self._entrances: dict[str, Entrance] = {}
        self._running = Group()
        self._launching: dict[str, BoundedSemaphore] = {}
        self._operations: Final[dict[str, Operation]] = {
            "install": partial(self._install, again=False),
            "prepare": self._prepare,
            "reinstall": partial(self._install, again=True),
            "restart": partial(self._install, again=True),
            "stop": self._stop_plugin,
            "remove": self._remove,
            "forget": self._forget,
            "transaction": self._transaction,
        }

    # ------------------------------------------------------------------ Runtime

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Installing is launching; there is nothing to stop."""
        return self._operations

    def start(self) -> None:
        """StartRefused when the connector does not answer."""
        self._connector.ping()

    def opened(self, call: ServerCall) -> bool:
        """Take every call of a plugin: nothing runs on this machine."""
        head = call.head
        if not isinstance(head, PluginHead):
            return False
        try:
            entrance = self._entrance(head.plugin)
        except InvalidIdentifier as error:
            call.fail(PluginStartFailed(error.message).as_json())
            return True
        # Crowded in any case: a function is always up, there are only sessions to wait for.
        if not entrance.admit(call):
            entrance.wait(call, crowded=True)
        return True

    def _entrance(self, identifier: str) -> Entrance:
        known = self._entrances.get(identifier)
        if known is None:
            plugin_id = PluginIdentifier.parse(identifier).plugin_id
            known = self._entrances[identifier] = Entrance(
                self._settings.for_plugin(plugin_id),
                self._sessions,
                begin=self._begin,
                free=lambda: True,
            )
        return known

    def _begin(self, call: ServerCall) -> bool:
        head = call.head
        assert isinstance(head, PluginHead)  # noqa: S101 - only such calls come to an entrance
        signed = self._places.signed(head.session)
        if signed in self._invocations:
            call.fail(CallFailed(f"session {head.session} is open already").as_json())
            return True
        plugin_log = self._log_of(plugin_id_of(head.plugin))
        invocation = Invocation(call, head, signed, self._settings, self._pool, plugin_log)
        self._invocations[signed] = invocation
        greenlet = self._running.spawn(invocation.run, self._functions.get)
        # Not in `run`: a greenlet that is killed before its first turn runs nothing.
        greenlet.link(lambda _: self._ended(invocation))
        call.on_cancel = partial(greenlet.kill, block=False)
        return True

    def status(self) -> Iterable[dict[str, Any]]:
        """One dict per function that was called since the host started."""
        return [self._status(*one) for one in self._functions.known.items()]

    def _status(self, identifier: str, known: Known) -> dict[str, Any]:
        entrance = self._entrances.get(identifier)
        return {
            **status_elsewhere(identifier, "serverless", entrance),
            "function": {"name": known.function.name, "url": known.function.url},
            "sessions": entrance.sessions if entrance is not None else 0,
            "served": known.served,
        }

    def stop(self, grace: float) -> None:
        """Let open calls end for ``grace`` seconds, then abort their requests."""
        stopping = HostLost("the host is stopping")
        for entrance in self._entrances.values():
            entrance.fail(stopping)
        relayed = gevent.spawn(self._neighbours.drain, grace)
        self._running.join(timeout=grace)
        relayed.join()
        # Told before they are killed: a killed one has nobody who would tell its caller.
        for invocation in list(self._invocations.values()):
            invocation.call.fail(stopping.as_json())
        self._running.kill()
        for entrance in self._entrances.values():
            entrance.close()
        self._pool.close()
        self._neighbours.close()

    def _ended(self, invocation: Invocation) -> None:
        """Its greenlet is dead, whatever ended it. Called once."""
        del self._invocations[invocation.signed]
        self._transactions.session_over(invocation.signed)
        if invocation.head.plugin not in self._functions.known:
            self._dismiss(invocation.head.plugin)

    def _dismiss(self, identifier: str) -> None:
        """The entrance of what has no function goes: any text may be called by /v2."""
        # Not one in use: its calls are counted there, and the last of them comes here again.
        entrance = self._entrances.get(identifier)
        if entrance is not None and not entrance.sessions and not entrance.waiting:
            del self._entrances[identifier]
            entrance.close()

    # ------------------------------------------------------------------ operations

    def _install(self, call: ServerCall, params: dict[str, Any], *, again: bool) -> None:
        identifier = PluginIdentifier.parse(str(params.get("identifier", "")))
        # Two tenants that install it at once are one launch: the second finds the function there.
        lock = self._launching.setdefault(str(identifier), BoundedSemaphore())
        with lock:
            try:
                function = self._launched(identifier, reporter(call), again=again)
                # The row first, the word to others after it: who hears of it looks there.
                self._functions.put(identifier, function)
            except ConnectorFailed as error:
                raise InstallFailed(f"failed to launch plugin: {error.message}") from error
            except StorageUnavailable as error:
                raise InstallFailed(f"{_NOT_KEPT}: {error.message}") from error
        log.info("function launched", plugin=str(identifier), function=function.name)
        self._changed()

    def _launched(
        self, identifier: PluginIdentifier, progress: Progress, *, again: bool
    ) -> Function:
        if not again:
            found = self._connector.find(identifier)
            if found is not None and found.url:
                progress("ready", "the function is there already")
                return found
        progress("unpack", "loading the package")
        package = self._package_of(str(identifier))
        verified = self._functions.is_verified(str(identifier))
        return self._connector.launch(identifier, package, verified=verified, progress=progress)

    def _prepare(self, call: ServerCall, params: dict[str, Any]) -> None:
        """A version that was installed where plugins were processes gets its function."""
        identifier = str(PluginIdentifier.parse(str(params.get("identifier", ""))))
        try:
            self._functions.get(identifier)
            built = False
        # No row: the version was installed before plugins were functions.
        except PluginStartFailed:
            self._install(call, params, again=False)
            built = True
        tell(call, {"built": built})

    def _stop_plugin(self, call: ServerCall, params: dict[str, Any]) -> None:
        """Its calls run on: the function is not ours to stop."""
        tell(call, {"stopped": False})

    def _remove(self, call: ServerCall, params: dict[str, Any]) -> None:
        identifier = str(params.get("identifier", ""))
        self._functions.drop(identifier)
        self._launching.pop(identifier, None)
        self._dismiss(identifier)
        self._log_of(plugin_id_of(identifier)).close()
        tell(call, {"removed": identifier})

    def _forget(self, call: ServerCall, params: dict[str, Any]) -> None:
        """The function's address changed (admin route)."""
        self._functions.forget(str(params.get("identifier", "")))
        self._changed()

    def _transaction(self, call: ServerCall, params: dict[str, Any]) -> None:
        signed = str(params.get("session", ""))
        if self._is_handed_on(call, signed):
            return
        invocation = self._invocation(signed)
        known = self._functions.get(invocation.head.plugin)
        self._invocation(signed)  # it may have ended while the rows were looked at
        invoke = str(params.get("invoke", "")).encode()
        self._transactions.carry_out(call, known.caller, signed, invocation.session, invoke)

    def _is_handed_on(self, call: ServerCall, signed: str) -> bool:
        """Whether another host has the session, and served ``call``. HostLost when it is away."""
        head = call.head
        if signed in self._invocations or not isinstance(head, HostHead) or head.relayed:
            return False
        address = self._places.elsewhere(signed)
        if not address or call.closed:
            return False
        self._neighbours.hand_on(call, address).wait()
        return True

    def _invocation(self, signed: str) -> Invocation:
        found = self._invocations.get(signed)
        if found is None:
            raise SessionOver("failed to get session info from cache")
        return found

    def _changed(self) -> None:
        with self._database.read() as conn:
            now = generation.current(conn)
        self._notify(msgspec.json.encode({"generation": now}))
