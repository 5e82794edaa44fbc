"""Builds and keeps the environments of plugins.

    <working path>/.environments/<key>/          one environment: bin/python, lib/, tidegate.json
                                 <key>.lock      held while it is built or removed
                                 <key>.users/    one empty file per plugin that uses it
                                 .tmp-<key>/     being built; renamed when whole

An environment is never changed once it has its name. Requests for one key are one build, in this
process and in others on the same folder; a build that was killed leaves a ``.tmp-`` folder, which
the next one throws away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import gevent
from gevent import get_hub
from gevent.lock import BoundedSemaphore

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments.closure import Project, read_project
from tidegate.environments.installing import Installer, Progress, remove_folder
from tidegate.environments.interpreters import Interpreter, Interpreters
from tidegate.environments.mirrors import Mirror
from tidegate.environments.sdks import mend_sdk
from tidegate.environments.tool import Tools
from tidegate.environments.walls import COMPILER, Confine
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("environments")

_MARKER: Final = "tidegate.json"
_BUILDS_AT_ONCE: Final = 2
#: Counts how builds are made: environments of another recipe are not used any more.
_RECIPE: Final = "2"
_LOCK_LIMIT: Final = 900.0
_SKIPPED: Final = r"[/\\]\.(venv|uv-cache|git)[/\\]"


@final
@dataclass(frozen=True, slots=True)
class Environment:
    """A whole environment: its key, its folder, its Python, and the library that Python is from."""

    key: str
    folder: Path
    python: Path
    prefix: str


@final
class Environments:
    """The environments below one working path. One per host; methods may take minutes."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        self._settings = settings
        self._root = settings.working_path / ".environments"
        self._tools = Tools(settings, given)
        self._mirror = Mirror(settings)
        self._installer = Installer(settings, self._tools, self._mirror)
        self._interpreters = Interpreters(settings, given, self._tools)
        self._building = BoundedSemaphore(_BUILDS_AT_ONCE)
        self._locks: dict[str, BoundedSemaphore] = {}

    def confine(self, walls: Callable[[], Confine | None]) -> None:
        """Build behind what ``walls`` answers, if anything. Called once, by ``PluginHost``."""
        self._tools.confine = walls

    def ensure(
        self, folder: Path, *, python: str, checksum: str, user: str, progress: Progress
    ) -> Environment:
        """The environment for the extracted package in ``folder``, built when it is not there.

        ``python`` is the version that the manifest asks for, ``checksum`` the package's, ``user``
        the name under which :meth:`release` gives it back. Called by ``hosts`` before a plugin is
        started; EnvironmentFailed has the step and the tool's own words.
        """
        try:
            return self._ensure(folder, python, checksum, user, progress)
        except OSError as error:
            raise EnvironmentFailed(f"environment cannot be written: {error}") from error

    def _ensure(
        self, folder: Path, python: str, checksum: str, user: str, progress: Progress
    ) -> Environment:
        # A lock may be long and its parser is slow: not in the hub's thread.
        look = (folder, self._settings, checksum, self._mirror.url())
        project: Project = get_hub().threadpool.apply(read_project, look)
        interpreter = self._interpreters.find(python, project.requires_python)
        key = _key(project, interpreter)
        self._root.mkdir(parents=True, exist_ok=True)
        found = self._existing(key)
        if found is None:
            with self._locked(key, progress), self._building:
                found = self._existing(key) or self._build(key, project, interpreter, progress)
        self._use(key, user)
        return found

    def has(self, user: str) -> bool:
        """Whether ``user`` has an environment that can be used. Quick: nothing is resolved."""
        return any(
            (users / user).exists() and self._existing(users.name.removesuffix(".users"))
            for users in self._root.glob("*.users")
        )

    def compile_folder(self, environment: Environment, folder: Path) -> None:
        """Byte-compile a plugin's own code. A file that does not compile is the plugin's affair."""
        extra = shlex.split(self._settings.python_compile_all_extra_args)
        skipped = _SKIPPED
        while "-x" in extra[:-1]:  # compileall takes one pattern: the operator's joins ours
            at = extra.index("-x")
            skipped += f"|{extra[at + 1]}"
            del extra[at : at + 2]
        # -S: nothing of the environment is executed, no .pth file either.
        python = [str(environment.python), "-I", "-S"]
        # Not -q: its silence is what a step that is stuck is known by.
        command = [*python, "-m", "compileall", "-x", skipped, *extra, "."]
        shown = {folder: "w", environment.folder: "r", Path(environment.prefix): "r"}
        try:
            self._tools.run(command, folder=folder, on_line=_ignore, shown=shown, user=COMPILER)
        except EnvironmentFailed as error:
            log.warning("plugin code does not compile", folder=str(folder), error=error.message)

    def release(self, user: str) -> None:
        """``user`` is gone: what nobody else uses is removed. Called when a plugin is removed."""
        for users in self._root.glob("*.users"):
            if (users / user).exists():
                self._give_back(users / user)

    def release_former(self) -> None:
        """Of users with several environments, all but the one that they were given last go.

        They are from before another recipe, setting or interpreter. Called at a host's start, the
        only one on this folder: later a plugin's instance may still run in what is not its last.
        """
        last: dict[str, Path] = {}
        for mark in sorted(self._root.glob("*.users/*"), key=lambda one: one.stat().st_mtime_ns):
            former = last.get(mark.name)
            last[mark.name] = mark
            if former is not None:
                self._give_back(former)

    def users(self) -> set[str]:
        """Everybody who was given an environment and has not given it back."""
        return {mark.name for mark in self._root.glob("*.users/*")}

    def sweep(self) -> None:
        """Delete what a killed host left half-built or half-removed. Called at a host's start."""
        for folder in [*self._root.glob(".tmp-*"), *self._root.glob(".gone-*")]:
            key = folder.name.split("-")[1]
            # Whoever builds holds it: not ours to delete, though it looks half-made.
            with (self._root / f"{key}.lock").open("a") as file:
                try:
                    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # another host builds it right now
                remove_folder(folder)
        self._installer.sweep()

    def _existing(self, key: str) -> Environment | None:
        folder = self._root / key
        try:
            marker = json.loads((folder / _MARKER).read_bytes())
        except (OSError, ValueError):
            return None
        python = folder / "bin/python"
        if not os.access(python, os.X_OK):
            return None  # its interpreter was removed from the machine
        return Environment(key, folder, python, str(marker.get("prefix", "")))

    def _build(
        self, key: str, project: Project, interpreter: Interpreter, progress: Progress
    ) -> Environment:
        started = SYSTEM_CLOCK.monotonic()
        temporary = self._root / f".tmp-{key}"
        remove_folder(temporary)
        remove_folder(self._root / key)
        try:
            self._installer.fill(temporary, project, interpreter, progress)
            # Now it is the host's alone: whoever built it can put no link in the way of these two.
            mend_sdk(temporary, progress)
            _write_marker(temporary / _MARKER, key, interpreter)
            temporary.rename(self._root / key)
        except BaseException:
            remove_folder(temporary)
            raise
        log.info("environment built", key=key, seconds=SYSTEM_CLOCK.monotonic() - started)
        built = self._existing(key)
        if built is None:
            raise EnvironmentFailed(f"environment {key} was built but has no working python")
        return built

    @contextlib.contextmanager
    def _locked(self, key: str, progress: Progress) -> Iterator[None]:
        """One at a time for this key: here by a semaphore, between processes by flock."""
        own = self._locks.setdefault(key, BoundedSemaphore(1))
        if own.locked():
            progress("environment", "waiting for the same environment to be built")
        with own, (self._root / f"{key}.lock").open("a") as file:
            _flock(file.fileno(), key)
            yield

    def _use(self, key: str, user: str) -> None:
        users = self._root / f"{key}.users"
        users.mkdir(exist_ok=True)
        (users / user).touch()

    def _give_back(self, mark: Path) -> None:
        mark.unlink(missing_ok=True)
        self._collect(mark.parent.name.removesuffix(".users"), mark.parent)

    def _collect(self, key: str, users: Path) -> None:
        with self._locked(key, lambda step, message: None):
            if not users.exists() or any(users.iterdir()):
                return  # given back twice, or taken anew
            remove_folder(self._root / key)
            users.rmdir()
        log.info("environment removed", key=key)


def _key(project: Project, interpreter: Interpreter) -> str:
    parts = [_RECIPE, project.closure, interpreter.version, str(interpreter.path)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _write_marker(path: Path, key: str, interpreter: Interpreter) -> None:
    marker = {
        "key": key,
        "python": interpreter.version,
        "prefix": interpreter.prefix,
        "timestamp": int(SYSTEM_CLOCK.now().timestamp()),
    }
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:  # "x" does not follow a link left there
        file.write(json.dumps(marker))


def _flock(fd: int, key: str) -> None:
    end = SYSTEM_CLOCK.monotonic() + _LOCK_LIMIT
    pause = 0.02
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if SYSTEM_CLOCK.monotonic() > end:
                raise EnvironmentFailed(
                    f"another process has been building environment {key} for too long"
                ) from None
            gevent.sleep(pause)  # a file lock has no event to wait for
            pause = min(pause * 2, 0.5)
        else:
            return


def _ignore(line: str) -> None:
    """compileall has nothing to say that a person waits for."""
