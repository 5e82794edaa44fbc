"""A host for tests of callers: real link, plugins that are functions of the test.

    def weather(call: ServerCall) -> None:
        call.send(b'{"type":"text","message":{"text":"18"},"meta":null}')
        call.finish()

    with linked_host(settings, {"acme/weather": weather}) as host: ...

Each call runs in a greenlet of its own; ``host.calls`` keeps what was opened, ``host.cancelled``
what its caller gave up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import gevent
import msgspec
from gevent.event import Event
from gevent.pool import Group

from tidegate.ids import plugin_id_of
from tidegate.link import LinkServer, ServerCall
from tidegate.runtime import home
from tidegate.settings import Settings
from tidegate.wire.heads import HostHead
from tidegate.wire.pieces import whole

type Plugin = Callable[[ServerCall], None]


@final
class LinkedHost:
    """Follows ``link.Handler``. Made by :func:`linked_host`."""

    def __init__(self, plugins: Mapping[str, Plugin], answers: Mapping[str, Any]) -> None:
        self.plugins = dict(plugins)
        self.answers = dict(answers)
        self.calls: list[ServerCall] = []
        self.cancelled: list[ServerCall] = []
        self.opened_event = Event()
        self.cancelled_event = Event()
        self.greenlets = Group()

    def opened(self, call: ServerCall) -> None:
        """A caller opened ``call``."""
        # Before it is served: a test may look while its plugin waits.
        self.calls.append(call)
        call.on_cancel = lambda: self._cancelled(call)
        self.greenlets.spawn(self._serve, call)
        self.opened_event.set()

    def line(self, index: int = -1) -> dict[str, Any]:
        """What a plugin got on its standard input for one of the calls."""
        decoded: dict[str, Any] = msgspec.json.decode(whole(self.calls[index].payload))
        return decoded

    def _serve(self, call: ServerCall) -> None:
        head = call.head
        if isinstance(head, HostHead):
            call.send(msgspec.json.encode(self.answers.get(head.op, {})))
            call.finish()
        else:
            self.plugins[plugin_id_of(head.plugin)](call)

    def _cancelled(self, call: ServerCall) -> None:
        self.cancelled.append(call)
        self.cancelled_event.set()


@contextmanager
def linked_host(
    settings: Settings, plugins: Mapping[str, Plugin], answers: Mapping[str, Any] | None = None
) -> Iterator[LinkedHost]:
    """A host at the link of ``settings``. ``answers`` are those to control calls, by operation."""
    host = LinkedHost(plugins, answers or {})
    path = home.link_socket(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    server = LinkServer(host, key=home.link_key(settings), path=path)
    server.start()
    try:
        yield host
    finally:
        server.stop()
        host.greenlets.kill()
        # One turn: greenlets that were killed are gone when the test looks for leaks.
        gevent.sleep(0)
