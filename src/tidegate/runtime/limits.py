"""Open files and connections: each stream is one of both.

Who calls a plugin through Dify may be a plugin that Dify called through us: the first request
waits until the second one is answered. So api takes more connections than it is asked to serve
runs, and what comes on top of that is refused at once. Otherwise as many runs as there are
connections would wait for each other until their time is over.
"""

from __future__ import annotations

import resource
import sys

from tidegate.settings import Settings

#: Beyond this a limit costs more than it gives: some programs walk over all possible descriptors.
_ENOUGH = 1 << 18
#: Connections for requests that Dify makes while it answers a plugin's back-call.
_LEAST_RESERVE = 1000
#: Connections on which to refuse what is too much, and to answer everything but dispatch.
_ALWAYS_FREE = 64


def most_dispatched(settings: Settings) -> int:
    """Dispatch requests that one api process serves at once: SERVER_WORKER_CONNECTIONS and a
    reserve for the requests that those may lead to."""
    runs = settings.server_worker_connections
    return runs + max(runs, _LEAST_RESERVE)


def most_connections(settings: Settings) -> int:
    """Connections that one api process accepts."""
    return most_dispatched(settings) + _ALWAYS_FREE


def raise_open_files(wanted: int, setting: str) -> None:
    """Raise the soft limit as far as it goes; one line on stderr when that is below ``wanted``.

    Called in Gunicorn's master (its workers inherit it) and in the host.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < wanted:
        print(
            f"tidegate: warning: {soft} open files are allowed, {setting} may need {wanted}: "
            "raise the limit (ulimit -n, LimitNOFILE)",
            file=sys.stderr,
            flush=True,
        )
