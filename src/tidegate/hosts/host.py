"""The host itself: takes calls from the link and gives each to its plugin's supervisor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, final

import gevent
from gevent.lock import BoundedSemaphore

from tidegate.backcalls import Target
from tidegate.environments import Environments
from tidegate.errors import PluginStartFailed, TidegateError
from tidegate.hosts.admission import Admission
from tidegate.hosts.care import Care
from tidegate.hosts.control import Control
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.launch import Prepared
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.plugin_log import PluginLog
from tidegate.hosts.provision import Packages, Provision
from tidegate.hosts.runtimes import OtherHosts, Runtime
from tidegate.hosts.supervisor import Supervisor
from tidegate.ids import PluginIdentifier, plugin_id_of
from tidegate.link import ServerCall
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import PluginHead

log = get_log("hosts")


@final
class PluginHost:
    """Every plugin process of this machine. Implements ``link.Handler``; made by the entry file.

    ``notify`` and ``fingerprint`` are set by the entry file once the link server stands.
    """

    def __init__(
        self,
        settings: Settings,
        blobs: Packages,
        environments: Environments,
        target: Target,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.provision = Provision(settings, blobs, environments)
        self.grace = float(settings.plugin_max_execution_timeout)
        self.notify: Callable[[bytes], None] = _nobody_listens
        self.fingerprint: Callable[[], dict[str, Any]] = dict
        self._settings = settings
        self.target = target
        #: Asked before any supervisor, in order; filled by the entry file.
        self.runtimes: list[Runtime] = []
        #: Asked for plugins that are not here; set by the entry file.
        self.others: OtherHosts | None = None
        self._environ = dict(os.environ if environ is None else environ)
        self._slots = BoundedSemaphore(settings.plugin_local_launching_concurrent)
        self.admission = Admission(settings.tidegate_tenant_sessions)
        self._supervisors: dict[str, Supervisor] = {}
        self._logs: dict[str, PluginLog] = {}
        self.care = Care(lambda: self.supervisors)
        self.isolation = Isolation(settings, self._environ)
        environments.confine(lambda: self.isolation.confine)
        self._control = Control(self)
        self._stopping = False

    def opened(self, call: ServerCall) -> None:
        """``link.Handler``: runs in a connection's reader and never waits."""
        head = call.head
        if not isinstance(head, PluginHead):
            self._control.opened(call)
            return
        # A developer's connection shadows the installed version (D-55), so it is asked first.
        for runtime in self.runtimes:
            if runtime.opened(call):
                return
        supervisor = self._supervisors.get(head.plugin)
        if supervisor is not None:
            self._open(supervisor, call)
        elif self.others is None or self._stopping or self._is_here(head.plugin):
            self._open_here(call)
        else:
            self.others.route(call, self._open_here)

    def _is_here(self, identifier: str) -> bool:
        """Whether other hosts need not be asked: a plugin's first call then needs no database."""
        try:
            return self.provision.is_built(identifier)
        except TidegateError:
            return True  # no identifier at all: its refusal says so

    def _open_here(self, call: ServerCall) -> None:
        """Whatever it is, it is a plugin of this host, or of none."""
        try:
            supervisor = self.supervisor(call.head.plugin)  # type: ignore[union-attr]
        except TidegateError as error:
            call.fail(PluginStartFailed(error.message).as_json())
            return
        self._open(supervisor, call)

    def _open(self, supervisor: Supervisor, call: ServerCall) -> None:
        supervisor.open(call)
        # It looks every few seconds while nothing is called; a limit is kept from the first call
        # on.
        if self.care.dozing:
            self.care.wake()

    @property
    def supervisors(self) -> list[Supervisor]:
        """Every plugin that was called or installed since the host started."""
        return list(self._supervisors.values())

    def supervisor(self, identifier: str) -> Supervisor:
        """The plugin's supervisor, made when there is none; InvalidIdentifier when it is no id."""
        # Also for those that are known: an operation on one that has ended would wait for another.
        if self._stopping:
            raise PluginStartFailed("no available node: the host is stopping")
        known = self._supervisors.get(identifier)
        if known is not None:
            return known
        # Before anything is made for it: what is no identifier must not leave a supervisor behind.
        PluginIdentifier.parse(identifier)
        made = Supervisor(
            identifier,
            self.provision,
            self._settings.for_plugin(plugin_id_of(identifier)),
            self._slots,
            self._make,
            self._unknown,
            self.admission,
        )
        self._supervisors[identifier] = made
        self.care.start()
        return made

    def sweep(self) -> None:
        """Delete what a host that was killed left half-made. Called once, before the first call."""
        self.provision.sweep()

    def start(self) -> None:
        """Begin to serve. Called once, before the first call. StartRefused when it cannot."""
        log.info("isolation of plugins", **self.isolation.report())
        for runtime in self.runtimes:
            runtime.start()

    def stop_plugin(self, identifier: str, grace: float) -> bool:
        """Stop one plugin: no more calls, ``grace`` seconds for open ones. False if none ran."""
        supervisor = self._supervisors.get(identifier)
        if supervisor is None:
            return False
        # In a greenlet of its own, which goes on when the time of whoever asked is over.
        gevent.spawn(self._stop, supervisor, grace).get()
        return True

    def _stop(self, supervisor: Supervisor, grace: float) -> None:
        supervisor.stop(grace)
        if self._supervisors.get(supervisor.identifier) is supervisor:
            del self._supervisors[supervisor.identifier]

    def stop(self, grace: float) -> None:
        """End every plugin; open calls get ``grace`` seconds. Called when the host stops."""
        self._stopping = True
        stops = [one.stop for one in self.runtimes] + [one.stop for one in self.supervisors]
        # All at once: their graces must not add up.
        gevent.joinall([gevent.spawn(stop, grace) for stop in stops])
        self.care.stop()
        self._supervisors.clear()
        for plugin_log in self._logs.values():
            plugin_log.close()

    def _make(self, prepared: Prepared, on_gone: Callable[[LocalInstance], None]) -> LocalInstance:
        def gone(instance: LocalInstance) -> None:
            on_gone(instance)
            self.care.bury(instance.pid)
            # The next line opens it again. Plugins come and go, descriptors would stay.
            self.log_of(prepared.plugin_id).close()

        return LocalInstance(
            prepared,
            self._settings.for_plugin(prepared.plugin_id),
            self._environ,
            self.isolation,
            self.log_of(prepared.plugin_id),
            self.target,
            gone,
        )

    def _unknown(self, supervisor: Supervisor) -> None:
        """There is no such package: do not keep a supervisor for it."""
        if self._supervisors.get(supervisor.identifier) is supervisor:
            del self._supervisors[supervisor.identifier]

    def log_of(self, plugin_id: str) -> PluginLog:
        """The log of a plugin, whatever it runs in."""
        known = self._logs.get(plugin_id)
        if known is None:
            path = self._settings.home.logs / "plugins" / f"{plugin_id}.log"
            known = self._logs[plugin_id] = PluginLog(path)
        return known


def _nobody_listens(body: bytes) -> None:
    """Until the link server stands there is nobody to tell."""
