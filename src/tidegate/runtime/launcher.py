"""One way to start a role: ``tidegate api|worker|beat|host``, ending in the real program.

    api      gunicorn -c python:tidegate.gunicorn_conf tidegate.app:app
    worker   celery -A tidegate.celery_entrypoint.celery worker -P gevent ...
    beat     python -m gevent.monkey --module celery -A tidegate.celery_entrypoint.celery beat
    host     python -I -S .../runtime/guard.py python -m tidegate.host_entrypoint

``tidegate up`` is these four, supervised: runtime/supervise, which stands on this file.

The commands take everything that is a setting from the environment, in the entry files, so that
the debugger's template can name the same words. ``--print`` shows the command, ``--check`` does
all that comes before serving; other arguments go to the program, whose guards judge what they
did. This file imports nothing heavy, and nothing that a later patch would miss.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tidegate.errors import StartRefused
from tidegate.runtime.home import link_socket, prepare_home
from tidegate.runtime.limits import dump_no_memory
from tidegate.settings import Settings

ROLES = ("api", "worker", "beat", "host")
CELERY_APP = "tidegate.celery_entrypoint.celery"
CONFIG = "python:tidegate.gunicorn_conf"
APPLICATION = "tidegate.app:app"

# Checked before the role starts, since Gunicorn and Celery hide what is missing behind a
# misleading text ("class uri 'gevent' invalid or not found").
_NEEDED = {
    "api": ("gunicorn", "gevent", "packaging", "wsproto", "grpc", "psycopg2", "psycogreen"),
    "worker": ("celery", "kombu", "gevent", "grpc", "psycopg2", "psycogreen"),
    "beat": ("celery", "kombu", "gevent", "grpc", "psycopg2", "psycogreen"),
    "host": ("gevent", "grpc", "psycopg2", "psycogreen"),
}


def command_for(role: str, settings: Settings, extra: Sequence[str] = ()) -> list[str]:
    """The argument list that starts ``role``; ``extra`` goes to the program, unjudged."""
    del settings  # read by the entry files, so that these words are the same everywhere
    return [*_program(role), *_arguments(role), *extra]


def launch(role: str, argv: Sequence[str]) -> NoReturn:
    """Become ``role``, or say in one line why not. Called by the CLI and the scripts in ``dev/``.

    Ends by exec, or by SystemExit: 0 after ``--print`` and ``--check``, 78 when refused.
    """
    # Ours are taken out; all else is the program's, and judged by its guards.
    wanted = [word for word in argv if word not in ("--print", "--check")]
    with refusals_end_the_process():
        settings = prepare_home(os.environ)
        command = command_for(role, settings, wanted)
        if "--print" in argv:
            print(shlex.join(command))
            raise SystemExit(0)
        check(role, settings)
        if "--check" in argv:
            print(shlex.join(command))
            raise SystemExit(0)
        # Absolute from here on: the program may change its working folder.
        os.environ["TIDEGATE_HOME"] = settings.tidegate_home
        dump_no_memory(settings)
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - the command is ours


def check(role: str, settings: Settings) -> None:
    """All that can be wrong before ``role`` serves. StartRefused with one line."""
    require_installed(role)
    if role == "api":
        require_free_port(settings.server_host, settings.server_port)
    if role == "host":
        link_socket(settings)


def require_installed(role: str) -> None:
    """StartRefused naming the first package that ``role`` needs and that is not there."""
    for name in _NEEDED[role]:
        if not _is_installed(name):
            raise StartRefused(
                f"the Python package {name!r} is missing, {role} cannot start: "
                "run `make` (or reinstall tidegate) to bring it"
            )


def _is_installed(name: str) -> bool:
    if sys.modules.get(name) is not None:  # kombu replaces itself by a module without a spec
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def require_free_port(host: str, port: int) -> None:
    """StartRefused when api's address cannot be bound: taken, not ours, or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # two sockets may bind with SO_REUSEADDR; only one may listen
        except OSError as error:
            raise StartRefused(
                f"api cannot listen on {host}:{port} ({error.strerror}): "
                "stop what uses it, or set SERVER_PORT (SERVER_HOST) to another"
            ) from error


@contextmanager
def refusals_end_the_process(code: int | None = None) -> Iterator[None]:
    """Turn StartRefused into one line on stderr and the exit code of a refusal."""
    try:
        yield
    except StartRefused as error:
        refuse(error, code)


def refuse(error: StartRefused, code: int | None = None) -> NoReturn:
    """Print the one line and end this process. 78, or what the program above understands."""
    sys.stdout.flush()
    print(f"tidegate: {error.message}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code if code is None else code) from None


def _program(role: str) -> list[str]:
    if role == "api":
        return script("gunicorn")
    if role == "worker":
        return script("celery")
    if role == "beat":
        return [sys.executable, "-m", "gevent.monkey", "--module", "celery"]
    if role == "host":
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
        return [*guard, sys.executable, "-m", "tidegate.host_entrypoint"]
    raise StartRefused(f"there is no role {role!r}: take one of {', '.join(ROLES)}")


def _arguments(role: str) -> list[str]:
    if role == "api":
        return ["-c", CONFIG, APPLICATION]
    if role == "worker":
        return ["-A", CELERY_APP, "worker", "-P", "gevent", "--without-gossip", "--without-mingle"]
    if role == "beat":
        return ["-A", CELERY_APP, "beat"]
    return []


def script(name: str) -> list[str]:
    """Command line of a console script: the one beside this interpreter, else ``python -m``."""
    beside = Path(sys.executable).parent / name
    return [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", name]
