"""Fills a new environment: uv installs what the project asks for, then all of it is compiled.

Packages that come as source are built by code of their own. Behind walls (rung 2 and 3) that code
must not touch what others are built from: so wheels are installed first, with a cache that all
builds share and beside which nothing foreign ever runs; only when that cannot be, everything is
done again with building allowed, by another user and with a cache that is thrown away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from gevent import get_hub

from tidegate.clock import SYSTEM_CLOCK
from tidegate.environments.closure import Project
from tidegate.environments.interpreters import Interpreter
from tidegate.environments.mirrors import Mirror
from tidegate.environments.tool import Tools
from tidegate.environments.walls import BUILDER, COMPILER, INSTALLER, give
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

_COMPILER: Final = Path(__file__).with_name("compiler.py")
_WORKERS: Final = min(4, len(os.sched_getaffinity(0)))
#: Compiled code that no build asked for in so many seconds is thrown away.
_KEPT_FOR: Final = 30 * 86400.0
#: What uv says when a package is there as source only.
_NEEDS_BUILDING: Final = ("--no-build", "source distributions is disabled", "no-build`")

#: Called with (step, message) while a build goes on.
type Progress = Callable[[str, str], None]


@final
@dataclass(frozen=True, slots=True)
class _Work:
    """One environment that is being made."""

    target: Path
    project: Project
    interpreter: Interpreter
    say: Callable[[str], None]

    def shown(self, tool: str) -> dict[Path, str]:
        """What each step of it needs to see."""
        return {self.target: "w", Path(self.interpreter.prefix): "r", Path(tool): "r"}


@final
class Installer:
    """One per ``Environments``. Its methods may take minutes."""

    def __init__(self, settings: Settings, tools: Tools, mirror: Mirror) -> None:
        self._settings = settings
        self._tools = tools
        self._mirror = mirror
        self._cache = settings.working_path / ".uv-cache-builds"
        self._compiled = settings.working_path / ".compiled"

    def fill(
        self, target: Path, project: Project, interpreter: Interpreter, progress: Progress
    ) -> None:
        """Make the environment ``target``. EnvironmentFailed says what could not be had."""
        work = _Work(target, project, interpreter, lambda line: progress("environment", line))
        work.say(f"creating an environment with Python {interpreter.version}")
        self._create(work)
        work.say("installing dependencies")
        with _workplace(project, target) as folder:
            self._install(work, folder)
        (target / ".lock").unlink(missing_ok=True)  # uv's; everybody may write in it
        self._compile(work)
        if self._tools.confined:  # nobody but the host may change it from here on
            get_hub().threadpool.apply(give, (target, os.getuid()))

    def sweep(self) -> None:
        """Throw away compiled code that was not asked for in a month. At a host's start."""
        get_hub().threadpool.apply(_forget, (self._compiled, _KEPT_FOR))

    def _create(self, work: _Work) -> None:
        work.target.mkdir()
        python = ["--python", str(work.interpreter.path), "--no-python-downloads"]
        options = ["--relocatable", "--no-project", "--no-config", "--allow-existing"]
        shown, variables = self._shared_cache()
        self._tools.run_uv(
            ["venv", *options, *python, str(work.target)],
            folder=work.target,
            on_line=work.say,
            shown={**work.shown(self._tools.uv), **shown},
            extra=variables,
        )

    def _install(self, work: _Work, folder: Path) -> None:
        if not self._tools.confined:
            self._sync(work, folder, [])
            return
        try:
            self._sync(work, folder, ["--no-build"])
        except EnvironmentFailed as error:
            if not any(sign in error.message for sign in _NEEDS_BUILDING):
                raise
            work.say("a package comes as source: it is built apart")
            self._sync(work, folder, ["--no-cache"], BUILDER)

    def _sync(self, work: _Work, folder: Path, more: Sequence[str], user: str = INSTALLER) -> None:
        shown, variables = self._shared_cache() if user == INSTALLER else ({}, {})
        if self._tools.confined:  # a link would share the file, and its owner, with the cache
            variables["UV_LINK_MODE"] = "copy"
        own = folder != work.project.folder or work.project.local
        self._tools.run_uv(
            [*self._arguments(work.project, work.target), *more],
            folder=folder,
            on_line=work.say,
            shown={**work.shown(self._tools.uv), **shown, folder: "w" if own else "r"},
            extra={
                "UV_PROJECT_ENVIRONMENT": str(work.target),
                "VIRTUAL_ENV": str(work.target),
                **variables,
            },
            user=user,
        )

    def _shared_cache(self) -> tuple[dict[Path, str], dict[str, str]]:
        """That of all builds behind walls: the operator's may not be theirs to write in."""
        if not self._tools.confined:
            return {}, {}
        self._cache.mkdir(exist_ok=True)
        return {self._cache: "w"}, {"UV_CACHE_DIR": str(self._cache)}

    def _compile(self, work: _Work) -> None:
        """By what is known of the same texts; what does not compile is the library's affair."""
        python = [str(work.target / "bin/python"), "-I", "-S", str(_COMPILER)]
        self._compiled.mkdir(parents=True, exist_ok=True)
        self._tools.run(
            [*python, str(work.target / "lib"), str(self._compiled), str(_WORKERS)],
            folder=work.target,
            on_line=work.say,
            shown={**work.shown(str(_COMPILER)), self._compiled: "w"},
            user=COMPILER,
        )

    def _arguments(self, project: Project, target: Path) -> list[str]:
        settings = self._settings
        shared = ["--python", str(target / "bin/python"), "--no-python-downloads"]
        mirror = self._mirror.url()
        if mirror:
            shared += ["--default-index", mirror]
        if settings.pip_verbose:
            shared.append("-v")
        shared += settings.pip_extra_args.split()
        if project.kind == "requirements":
            return ["pip", "install", "-r", "requirements.txt", *shared]
        sync = ["sync", "--no-dev", "--no-install-project"]
        if project.kind == "lock":
            sync.append("--frozen")
        return [*sync, *shared]


@contextlib.contextmanager
def _workplace(project: Project, target: Path) -> Iterator[Path]:
    """Where uv works: resolving writes a lock, which must not change the plugin's folder."""
    if project.kind != "project":
        yield project.folder
        return
    copy = target.with_name(f"{target.name}-project")
    remove_folder(copy)
    try:
        if project.local:
            get_hub().threadpool.apply(shutil.copytree, (project.folder, copy))
        else:
            copy.mkdir()
            shutil.copy(project.folder / "pyproject.toml", copy)
        yield copy
    finally:
        remove_folder(copy)


def remove_folder(folder: Path) -> None:
    """Delete a tree without holding up the hub: thousands of files take a while."""
    if folder.exists():
        doomed = folder.with_name(f".gone-{folder.name.removeprefix('.tmp-')}-{uuid.uuid4().hex}")
        folder.rename(doomed)
        get_hub().threadpool.apply(shutil.rmtree, (doomed,), {"ignore_errors": True})


def _forget(folder: Path, seconds: float) -> None:
    end = SYSTEM_CLOCK.now().timestamp() - seconds
    for path in folder.glob("*/*"):
        with contextlib.suppress(OSError):  # another host's sweep was first
            if path.stat().st_mtime < end:
                path.unlink()
