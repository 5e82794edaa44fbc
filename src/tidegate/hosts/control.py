"""Control calls: what api and worker ask of the host itself (wire/heads.HostHead).

| operation | params | answers | does |
|-----------|--------|---------|------|
| install | identifier | {step, message} … | builds what is missing, starts, waits for readiness |
| prepare | identifier | {step, message} …, {built} | builds what is missing, starts nothing |
| restart | identifier | {step, message} … | starts a new process, lets the old one drain |
| stop    | identifier | {stopped} | takes no more calls, drains, ends the processes |
| remove  | identifier | {removed} | stop, then deletes folder and unused environment |
| held    |  | {identifier} … | what has a process or, in the data folder, files |
| changed | generation | {generation} | tells every connected process that lists changed |
| status  | identifier? | one dict per plugin | what runs |
| figures |  | one dict | numbers for metrics |
| runtime |  | one dict | the fingerprint of this process |

A failure is an ERROR with the reason; unknown operations and parameters are refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, final

import gevent
import msgspec

from tidegate.backcalls import TALLY
from tidegate.deadline import Deadline
from tidegate.errors import InstallFailed, TidegateError
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.provision import Provision
from tidegate.hosts.runtimes import Operation, Runtime, reporter, tell
from tidegate.hosts.status import elsewhere_of, figures_of, status_of
from tidegate.hosts.supervisor import Phase, Supervisor
from tidegate.ids import PluginIdentifier
from tidegate.link import ServerCall
from tidegate.telemetry.logs import get_log
from tidegate.wire.heads import HostHead

log = get_log("hosts")


class Controlled(Protocol):
    """What control calls ask of the host. ``PluginHost`` is one; it makes and owns its Control."""

    provision: Provision
    isolation: Isolation
    runtimes: list[Runtime]
    grace: float
    notify: Callable[[bytes], None]
    fingerprint: Callable[[], dict[str, Any]]

    @property
    def supervisors(self) -> list[Supervisor]:
        """Every plugin that was called or installed since the host started."""

    def supervisor(self, identifier: str) -> Supervisor:
        """The plugin's supervisor, made when there is none."""

    def stop_plugin(self, identifier: str, grace: float) -> bool:
        """Stop one plugin. False if none ran."""


class ControlRefused(TidegateError):
    """An operation that the host does not know, or parameters that do not fit it."""

    error_type = "ControlRefused"


@final
class Control:
    """Carries out control calls, each in a greenlet of its own."""

    def __init__(self, host: Controlled) -> None:
        self._host = host
        self._operations: Final = {
            "install": self._install,
            "prepare": self._prepare,
            "restart": self._restart,
            "stop": self._stop,
            "remove": self._remove,
            "held": self._held,
            "changed": self._changed,
            "status": self._status,
            "figures": self._figures,
            "runtime": self._runtime,
        }

    def opened(self, call: ServerCall) -> None:
        """Begin one control call. Called by ``PluginHost.opened``: does not wait."""
        # Some take minutes, and this runs in the reader that brings every call of that peer.
        gevent.spawn(self._run, call)

    def _run(self, call: ServerCall) -> None:
        head = call.head
        assert isinstance(head, HostHead)  # noqa: S101 - the host routes by this very type
        # Not one per operation: whoever asks says how long he waits, an installation or a look.
        deadline = gevent.Timeout(head.seconds)
        deadline.start()
        try:
            self._operation(head.op)(call, head.params)
            call.finish()
        except TidegateError as error:
            call.fail(error.as_json())
        except gevent.Timeout as expired:
            # Somebody else's time-out is a defect, and must not be told as this call's.
            if expired is not deadline:
                raise
            call.fail(Deadline(0.0, head.seconds, head.owner).error().as_json())
        except Exception as error:
            log.exception("control call failed", operation=head.op)
            call.fail(TidegateError(f"{head.op}: {error!r}").as_json())
        finally:
            deadline.close()

    def _operation(self, name: str) -> Operation:
        """A runtime's own operation comes before the host's of the same name."""
        for runtime in self._host.runtimes:
            # Serverless installs by launching a function; the words of the link are the same.
            if name in runtime.operations:
                return runtime.operations[name]
        return self._operations.get(name, _unknown)

    def _install(self, call: ServerCall, params: dict[str, Any]) -> None:
        identifier = _identifier(params)
        supervisor = self._host.supervisor(identifier)
        while supervisor.phase is Phase.STOPPED:
            # It is being removed, perhaps for another tenant: this installation comes after that.
            supervisor.wait_stopped()
            # Whoever stopped it takes it out of the table in this turn.
            gevent.sleep(0)
            supervisor = self._host.supervisor(identifier)
        # Its deaths were those of an earlier build, or of an environment that is mended by now.
        supervisor.restarts.forgive()
        try:
            supervisor.ensure_up(reporter(call))
        except TidegateError as error:
            # A plugin that does not start is not installed: nothing of it stays on the disk.
            with _reported(identifier):
                self._host.stop_plugin(identifier, grace=0.0)
                self._host.provision.remove(identifier)
            raise InstallFailed(
                f"failed to launch plugin: {error.message}", **error.details
            ) from error

    def _prepare(self, call: ServerCall, params: dict[str, Any]) -> None:
        identifier = _identifier(params)
        needed = not self._host.provision.is_built(identifier)
        if needed:
            self._host.provision.prepare(identifier, reporter(call))
        tell(call, {"built": needed})

    def _restart(self, call: ServerCall, params: dict[str, Any]) -> None:
        self._host.supervisor(_identifier(params)).restart(reporter(call))

    def _stop(self, call: ServerCall, params: dict[str, Any]) -> None:
        identifier = _identifier(params)
        tell(call, {"stopped": self._host.stop_plugin(identifier, _grace(params, self._host))})

    def _remove(self, call: ServerCall, params: dict[str, Any]) -> None:
        identifier = _identifier(params)
        self._host.stop_plugin(identifier, _grace(params, self._host))
        self._host.provision.remove(identifier)
        tell(call, {"removed": identifier})

    def _held(self, call: ServerCall, params: dict[str, Any]) -> None:
        # Also what runs without files: its folder may be outside of the data folder.
        running = {one.identifier for one in self._host.supervisors if one.instances}
        for identifier in sorted(running | set(self._host.provision.held())):
            tell(call, {"identifier": identifier})

    def _changed(self, call: ServerCall, params: dict[str, Any]) -> None:
        generation = int(params.get("generation", 0))
        self._host.notify(msgspec.json.encode({"generation": generation}))
        tell(call, {"generation": generation})

    def _status(self, call: ServerCall, params: dict[str, Any]) -> None:
        wanted = params.get("identifier")
        for supervisor in self._host.supervisors:
            if wanted in (None, "", supervisor.identifier):
                tell(call, status_of(supervisor))
        for runtime in self._host.runtimes:
            for status in runtime.status():
                if wanted in (None, "", status["identifier"]):
                    tell(call, status)

    def _figures(self, call: ServerCall, params: dict[str, Any]) -> None:
        statuses = [one for runtime in self._host.runtimes for one in runtime.status()]
        more = {
            "isolation_rung": self._host.isolation.rung,
            "elsewhere": elsewhere_of(statuses),
            "backcalls": TALLY.shown(),
        }
        tell(call, {**figures_of(self._host.supervisors), **more})

    def _runtime(self, call: ServerCall, params: dict[str, Any]) -> None:
        isolation = self._host.isolation.report()
        tell(call, {**self._host.fingerprint(), "isolation": isolation})


def _unknown(call: ServerCall, params: dict[str, Any]) -> None:
    raise ControlRefused(f"the host does not know the operation of this call: {call.head}")


def _identifier(params: dict[str, Any]) -> str:
    return str(PluginIdentifier.parse(str(params.get("identifier", ""))))


def _grace(params: dict[str, Any], host: Controlled) -> float:
    grace = params.get("grace")
    return float(grace) if isinstance(grace, int | float) else host.grace


@contextlib.contextmanager
def _reported(identifier: str) -> Iterator[None]:
    """Cleaning up after a failure must not hide it."""
    try:
        yield
    except (TidegateError, OSError) as error:
        log.error("cannot clean up after a failed start", plugin=identifier, error=str(error))
