"""Other ways to run a plugin than as a process of this host: debugged, serverless.

``PluginHost`` asks each of them first; what none takes goes to the supervisor of a local plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from tidegate.environments import Progress
from tidegate.link import ServerCall

#: One control operation: (call, params). It may wait; TidegateError is the call's error.
type Operation = Callable[[ServerCall, dict[str, Any]], None]


def tell(call: ServerCall, answer: Mapping[str, Any]) -> None:
    """One answer of an operation; most have just one."""
    call.send(msgspec.json.encode(answer))


def reporter(call: ServerCall) -> Progress:
    """Tells the steps of an operation that takes a while, as its answers."""
    return lambda step, message: tell(call, {"step": step, "message": message})


class OtherHosts(Protocol):
    """Hosts beside this one, which may hold a plugin that this one does not."""

    def route(self, call: ServerCall, here: Callable[[ServerCall], None]) -> None:
        """Hand ``call`` to the host that has its plugin, else to ``here``. Never waits."""


class Runtime(Protocol):
    """Where some plugins run. Made and attached by the host's entry file."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Control operations that it carries out in the host's place, by name."""

    def start(self) -> None:
        """Begin to serve. Called once, before the first call. StartRefused when it cannot."""

    def opened(self, call: ServerCall) -> bool:
        """Take a call of a plugin. Called in a reader of the link: never waits, never raises.

        False when the plugin is none of its; then it has not touched the call.
        """

    def status(self) -> Iterable[dict[str, Any]]:
        """One dict per plugin that it runs (hosts/status)."""

    def stop(self, grace: float) -> None:
        """End everything; open calls get ``grace`` seconds. Called when the host stops."""
