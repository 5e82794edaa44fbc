"""Runs the tools that build environments: uv and Python itself, always as child processes.

A tool is stopped when it says nothing for too long (``PYTHON_ENV_INIT_TIMEOUT``) or takes too
long in all; whatever it said last is in the error. It sees an allow-list of the environment:
builds of source packages run foreign code.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import gevent
from gevent import get_hub, monkey

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments.child import Child, ReadEnd
from tidegate.environments.spawning import spawn
from tidegate.environments.walls import INSTALLER, Confine, Walls
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

#: Gets each line that a tool prints for people.
type OnLine = Callable[[str], None]

TOTAL_LIMIT: Final = 600.0
_TAIL: Final = 64 << 10
_SHOWN_LINES: Final = 40
_NOISE: Final = ("DEBUG ", "TRACE ", "INFO ")
#: Lines of one read that are told. Each goes over the link to the job; what a hostile package's
#: build prints may be thirty thousand of them at once, and people read the last.
_TOLD_AT_ONCE: Final = 100
_PASSED: Final = (
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "ALL_PROXY", "all_proxy", "http_proxy", "https_proxy", "no_proxy",
    "UV_DEFAULT_INDEX", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "UV_PYTHON_INSTALL_MIRROR",
    "UV_OFFLINE", "UV_NO_INDEX", "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT", "UV_LINK_MODE", "UV_FIND_LINKS",
    "UV_EXTRA_INDEX_URL", "UV_KEYRING_PROVIDER", "UV_CONCURRENT_DOWNLOADS",
)  # fmt: skip
_close = monkey.get_original("os", "close")


def proxies(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables for a child, in capitals and in small letters: tools read either."""
    found: dict[str, str] = {}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        configured = str(getattr(settings, name.lower(), ""))
        value = configured or environ.get(name) or environ.get(name.lower()) or ""
        if value:
            found[name] = found[name.lower()] = value
    return found


@final
class Tools:
    """uv and interpreters as this host runs them. One per :class:`Environments`."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        #: Asked for walls around what is run with ``shown``; there are none at rungs 0 and 1.
        self.confine: Callable[[], Confine | None] = lambda: None

    @property
    def confined(self) -> bool:
        """Whether builds run as another user than the host. May wait, the first time."""
        return self.confine() is not None

    @property
    def uv(self) -> str:
        """Path of uv: ``UV_PATH``, else the one that was installed with Tidegate."""
        if self._settings.uv_path:
            path = self._settings.uv_path
        else:
            # Only when it is needed: an operator's own uv does without the package.
            import uv

            path = uv.find_uv_bin()
        if not os.access(path, os.X_OK):
            raise EnvironmentFailed(f"uv is not at {path}: set UV_PATH, or install it")
        return str(path)

    def environment(self) -> dict[str, str]:
        """What a tool sees: certificates, proxies, package indexes and its cache; no secrets."""
        environ = self._environ
        found = {name: environ[name] for name in _PASSED if environ.get(name)}
        found |= {k: v for k, v in environ.items() if k.startswith("UV_INDEX") and v}
        found |= proxies(self._settings, environ)
        index = environ.get("PIP_INDEX_URL")
        if index and not ({"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & found.keys()):
            found["UV_DEFAULT_INDEX"] = index
        # The operator's where he names one: one cache for all hosts of a machine.
        found.setdefault("UV_CACHE_DIR", str(self._settings.working_path / ".uv-cache"))
        found.setdefault("UV_PYTHON_INSTALL_DIR", str(self._settings.working_path / ".python"))
        found.setdefault("LANG", "C.UTF-8")
        return found

    def run_uv(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        on_line: OnLine,
        extra: Mapping[str, str] | None = None,
        shown: Mapping[Path, str] | None = None,
        user: str = INSTALLER,
    ) -> str:
        """:meth:`run` for uv, with the flags that every use of it shares."""
        command = [self.uv, *arguments, "--system-certs", "--no-progress", "--color", "never"]
        return self.run(
            command, folder=folder, on_line=on_line, extra=extra, shown=shown, user=user
        )

    def run(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        on_line: OnLine,
        extra: Mapping[str, str] | None = None,
        silence: float = 0.0,
        total: float = TOTAL_LIMIT,
        shown: Mapping[Path, str] | None = None,
        user: str = INSTALLER,
    ) -> str:
        """Run ``command`` to its end and return the last of what it said.

        ``shown`` is what it needs besides the system, for walls, and ``user`` who runs it there:
        with it the tool is one that handles what packages brought. EnvironmentFailed when it
        fails, says nothing for ``silence`` seconds (default: the setting), takes longer than
        ``total`` seconds or cannot be started.
        """
        limit = silence or self._settings.python_env_init_timeout
        name = " ".join([Path(command[0]).name, *command[1:2]])
        environment = {**self.environment(), **(extra or {})}
        with self._scratch(shown) as scratch:
            try:
                child = self._start(command, folder, environment, shown or {}, scratch, user)
            except OSError as error:
                raise EnvironmentFailed(f"{name} cannot be started: {error}") from error
            return self._follow(child, name, on_line, limit, total)

    def _start(
        self,
        command: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        shown: Mapping[Path, str],
        scratch: Path | None,
        user: str,
    ) -> Child:
        walls = self._walls(shown, scratch, user)
        if walls.temporary:
            environment |= {"TMPDIR": walls.temporary, "HOME": walls.temporary}
        return spawn(
            command,
            folder=folder,
            environment=environment,
            limits=walls.limits,
            view=walls.view,
            merge=True,
        )

    @contextlib.contextmanager
    def _scratch(self, shown: Mapping[Path, str] | None) -> Iterator[Path | None]:
        """A folder for temporary files of a tool behind walls; it goes with what is left in it."""
        if shown is None or not self.confined:
            yield None
            return
        around = self._settings.working_path / ".scratch"
        around.mkdir(mode=0o711, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="build-", dir=around))
        try:
            yield scratch
        finally:
            get_hub().threadpool.apply(shutil.rmtree, (scratch,), {"ignore_errors": True})

    def _walls(self, shown: Mapping[Path, str], scratch: Path | None, user: str) -> Walls:
        confine = self.confine() if scratch is not None else None
        if confine is None or scratch is None:
            return Walls()
        wheels = self._environ.get("UV_FIND_LINKS", "").replace(",", " ").split()
        found = {Path(path): "r" for path in wheels if os.path.isabs(path) and os.path.exists(path)}
        return confine({**found, **shown}, scratch, user)

    def _follow(self, child: Child, name: str, on_line: OnLine, limit: float, total: float) -> str:
        # Nobody answers a tool's questions: at the end of its input it goes on or gives up.
        _close(child.stdin)
        listener = _Listener(child, on_line)
        reader = ReadEnd(child.stdout)
        try:
            problem = listener.listen(reader, limit, total)
            ended = child.wait(1.0) if not problem else None
        finally:
            # Also when this greenlet is killed: a build goes with whoever waits for it.
            child.kill()
            child.wait(5.0)
            reader.close()
        if problem or ended is None or ended.code != 0:
            said = listener.told()
            raise EnvironmentFailed(f"{name}: {problem or ended}: {said}", tail=said)
        return listener.text()


@final
class _Listener:
    """Follows what one tool says."""

    def __init__(self, child: Child, on_line: OnLine) -> None:
        self._child = child
        self._on_line = on_line
        self._tail = b""
        self._partial = b""

    def listen(self, reader: ReadEnd, silence: float, total: float) -> str:
        """Read to the end. Returns what is wrong when a limit came first, else nothing."""
        end = SYSTEM_CLOCK.monotonic() + total
        while True:
            left = end - SYSTEM_CLOCK.monotonic()
            data = _read(reader, max(0.0, min(silence, left)))
            if data is None:
                if left <= silence:
                    return f"stopped, it took longer than {total:g} seconds"
                return f"init process exited due to no activity for {silence:g} seconds"
            if not data:
                return ""
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-_TAIL:]
        for line in lines[-_TOLD_AT_ONCE:]:
            text = line.decode("utf-8", "replace").rstrip()
            if text and not text.startswith(_NOISE):
                self._on_line(text)

    def text(self) -> str:
        """All that is remembered of what it said."""
        return self._tail.decode("utf-8", "replace")

    def told(self) -> str:
        """The end of what it said to people: its debug lines only when there is nothing else."""
        lines = [line.rstrip() for line in self.text().splitlines() if line.strip()]
        plain = [line for line in lines if not line.startswith(_NOISE)]
        return "\n".join((plain or lines)[-_SHOWN_LINES:])


def _read(reader: ReadEnd, seconds: float) -> bytes | None:
    """What came within ``seconds``; None when nothing did, empty at the end."""
    timeout = gevent.Timeout(seconds)
    timeout.start()
    try:
        return reader.read(1 << 16)
    except gevent.Timeout as expired:
        if expired is not timeout:
            raise
        return None
    finally:
        timeout.close()
