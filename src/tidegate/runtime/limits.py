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
#: Files of an api process that are no connections of clients: database, link, spools, logs.
OWN_FILES = 256


def most_dispatched(settings: Settings, files: int | None = None) -> int:
    """Dispatch requests that one api process serves at once: SERVER_WORKER_CONNECTIONS and a
    reserve for the requests that those may lead to; fewer where ``files`` (what this process may
    open) are not enough. What comes on top is refused: without a file it could only be left
    unanswered (T-R1)."""
    return min(_wanted(settings), _room(files))


def most_connections(settings: Settings, files: int | None = None) -> int:
    """Connections that one api process accepts."""
    return most_dispatched(settings, files) + _always_free(_files(files))


def bound_by(settings: Settings) -> str:
    """What to raise where :func:`most_dispatched` is too few."""
    enough = _wanted(settings) <= _room(None)
    return "SERVER_WORKER_CONNECTIONS" if enough else "open files: ulimit -n, LimitNOFILE"


def _wanted(settings: Settings) -> int:
    runs = settings.server_worker_connections
    return runs + max(runs, _LEAST_RESERVE)


def _room(files: int | None) -> int:
    most = _files(files)
    return max(1, most - min(OWN_FILES, most // 4) - _always_free(most))


def _always_free(files: int) -> int:
    return min(_ALWAYS_FREE, files // 8)


def _files(files: int | None) -> int:
    if files is not None:
        return files
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


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


def dump_no_memory(settings: Settings) -> None:
    """From here on a crash of this process, and of those that it starts, leaves no core file.

    The memory of a role holds every key and the credentials of running calls. Called before roles
    start; not with DEBUG, where somebody may want the file.
    """
    if not settings.debug:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
