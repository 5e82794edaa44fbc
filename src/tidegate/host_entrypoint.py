"""The host role: ``python -m tidegate.host_entrypoint``, the owner of every plugin process.

Nobody else patches this process, so its first statement does, before any import that could keep
an original; importing this file patches nothing. It then composes the rooms that only a host
may hold: environments, hosts, back-calls and the server end of the link.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import gc
import json
import os
import signal
from functools import partial
from typing import Any

from tidegate.runtime import boot, fingerprint, guard, launcher, link_key, link_socket
from tidegate.runtime.home import prepare_home, take_lock, write_whole
from tidegate.runtime.limits import raise_open_files
from tidegate.settings import Settings

COMMAND = "tidegate host"
# Five for each of 200 plugins, and those of builds; more is better.
_FILES = 4096


def main() -> None:
    """Run until SIGTERM or SIGINT. A refusal is one line and exit code 78."""
    # Before the settings: they are in the variables that the guard holds.
    guard.enter()
    with launcher.refusals_end_the_process():
        launcher.require_installed("host")
        boot.patch(COMMAND)
        settings = prepare_home(os.environ)
        raise_open_files(_FILES, "many plugins")
        lock = take_lock(settings.home, "host", "another host runs on this data folder")
        host, server = compose(settings)
        # After all imports, before anything is started: what bound an original is found here.
        boot.serve(COMMAND)
        if not settings.debug:
            guard.hide_memory()
        # Only here: in a test's process other children are not ours to collect.
        host.care.adopts = True
        stop = _stop_event()
        # Before the first call, and under the lock: nobody else works in the folder now.
        host.sweep()
        host.start()
        isolation = settings.home.run / "isolation.json"
        write_whole(isolation, json.dumps(host.isolation.report()).encode())
        # What is loaded now stays. A collection that walks it all stops every stream for 40 ms.
        gc.collect()
        gc.freeze()
        server.start()
    fingerprint.report("host", runner="tidegate host", pool="none", workers=1)
    # Last: its presence tells the supervisor that the host serves.
    fingerprint.keep("host", settings.home)
    stop.wait()
    fingerprint.forget("host", settings.home)
    isolation.unlink(missing_ok=True)
    # Plugins before the link: what they say in their grace still reaches its callers.
    host.stop(settings.tidegate_grace)
    host.target.close()
    server.stop()
    lock.close()


def compose(settings: Settings) -> tuple[Any, Any]:
    """Put the host's rooms together: the plugin host and the server that callers reach it by."""
    from tidegate.environments import Environments
    from tidegate.hosts import PluginHost
    from tidegate.link import LinkServer
    from tidegate.storage import Database
    from tidegate.storage.blobs import open_blobs
    from tidegate.telemetry.logs import configure_logging

    configure_logging(settings)
    environments = Environments(settings)
    blobs = open_blobs(settings)
    database = Database(settings)
    target = _target(settings, database, blobs)
    host = PluginHost(settings, blobs, environments, target)
    server = LinkServer(
        host,
        key=link_key(settings),
        path=link_socket(settings),
        tcp=settings.tidegate_link_tcp,
    )
    host.notify = server.notify
    _attach_runtimes(host, settings, database, blobs)
    host.fingerprint = partial(fingerprint.fingerprint, "host")
    return host, server


def _attach_runtimes(host: Any, settings: Settings, database: Any, blobs: Any) -> None:
    """What runs plugins besides processes of this machine. A debugged one comes first."""
    from tidegate.hosts import Debugging, Serverless

    tools: dict[str, Any] = {
        "log_of": host.log_of,
        "notify": host.notify,
        "sessions": host.admission,
    }
    debugging = Debugging(settings, database, blobs, host.target, **tools)
    host.runtimes = [debugging]
    host.others = debugging.elsewhere
    if settings.platform == "serverless":
        package_of = host.provision.package
        serverless = Serverless(settings, database, host.target, package_of=package_of, **tools)
        host.runtimes.append(serverless)


def _target(settings: Settings, database: Any, blobs: Any) -> Any:
    """Who answers back-calls: Dify or Tidegate itself; the plugin storage is ours in any case."""
    from tidegate.backcalls import open_target
    from tidegate.backcalls.plugin_storage import PluginStorage

    own = None
    if settings.backcalls == "self":
        # Only here: it brings the consumer's side of calls along, some 11 MiB.
        from tidegate.doors.plugins import open_own_answers

        own = open_own_answers(settings, database)
    return open_target(settings, storage=PluginStorage(settings, database, blobs), own=own)


def _stop_event() -> Any:
    import gevent
    from gevent.event import Event

    event = Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        gevent.signal_handler(number, event.set)
    return event


if __name__ == "__main__":
    main()
