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
from collections.abc import Callable, Iterator, Mapping
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
class Installer:
    """One per ``Environments``. Its methods may take minutes."""

    def __init__(self, settings: Settings, tools: Tools, mirror: Mirror) -> None:
        self._settings = settings
        self._tools = tools
        self._mirror = mirror
        self._compiled = settings.working_path / ".compiled"

    def fill(
        self, target: Path, project: Project, interpreter: Interpreter, progress: Progress
    ) -> None:
        """Make the environment ``target``. EnvironmentFailed says what could not be had."""

        def say(line: str) -> None:
            progress("environment", line)

        say(f"creating an environment with Python {interpreter.version}")
        target.mkdir()
        shown = {target: "w", Path(interpreter.prefix): "r", Path(self._tools.uv): "r"}
        venv = ["venv", "--relocatable", "--no-project", "--no-config", "--allow-existing"]
        python = ["--python", str(interpreter.path), "--no-python-downloads"]
        cache = self._settings.working_path / ".uv-cache-builds"
        extra = {"UV_CACHE_DIR": str(cache)} if self._tools.confined else {}
        self._tools.run_uv(
            [*venv, *python, str(target)],
            folder=target,
            on_line=say,
            shown={**shown, **_writable(cache, extra)},
            extra=extra,
        )
        say("installing dependencies")
        with _workplace(project, target) as folder:
            shown[folder] = "w" if folder != project.folder or project.local else "r"
            self._install(project, target, folder, shown, cache, say)
        (target / ".lock").unlink(missing_ok=True)  # uv's; everybody may write in it
        self._compile(target, interpreter)
        if self._tools.confined:  # nobody but the host may change it from here on
            get_hub().threadpool.apply(give, (target, os.getuid()))

    def sweep(self) -> None:
        """Throw away compiled code that was not asked for in a month. At a host's start."""
        get_hub().threadpool.apply(_forget, (self._compiled, _KEPT_FOR))

    def _install(
        self,
        project: Project,
        target: Path,
        folder: Path,
        shown: Mapping[Path, str],
        cache: Path,
        say: Callable[[str], None],
    ) -> None:
        arguments = self._arguments(project, target)
        extra = {"UV_PROJECT_ENVIRONMENT": str(target), "VIRTUAL_ENV": str(target)}

        def run(
            more: list[str],
            shown: Mapping[Path, str],
            variables: Mapping[str, str],
            user: str = INSTALLER,
        ) -> None:
            self._tools.run_uv(
                [*arguments, *more],
                folder=folder,
                on_line=say,
                shown=shown,
                extra={**extra, **variables},
                user=user,
            )

        if not self._tools.confined:
            run([], shown, {})
            return
        # A copy: a link would share the file, and its owner, with the cache.
        apart = {"UV_CACHE_DIR": str(cache), "UV_LINK_MODE": "copy"}
        try:
            run(["--no-build"], {**shown, **_writable(cache, apart)}, apart)
        except EnvironmentFailed as error:
            if not any(sign in error.message for sign in _NEEDS_BUILDING):
                raise
            say("a package comes as source: it is built apart")
            run(["--no-cache"], shown, {"UV_LINK_MODE": "copy"}, BUILDER)

    def _compile(self, target: Path, interpreter: Interpreter) -> None:
        """By what is known of the same texts; what does not compile is the library's affair."""
        command = [str(target / "bin/python"), "-I", "-S", str(_COMPILER), str(target / "lib")]
        self._compiled.mkdir(parents=True, exist_ok=True)
        shown = {target: "w", self._compiled: "w"}
        shown |= {Path(interpreter.prefix): "r", _COMPILER: "r"}
        self._tools.run(
            [*command, str(self._compiled), str(_WORKERS)],
            folder=target,
            on_line=_ignore,
            shown=shown,
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


def _writable(cache: Path, variables: Mapping[str, str]) -> dict[Path, str]:
    """A cache of ours as something that is shown, made when it is not there."""
    if not variables:
        return {}
    cache.mkdir(exist_ok=True)
    return {cache: "w"}


def _forget(folder: Path, seconds: float) -> None:
    end = SYSTEM_CLOCK.now().timestamp() - seconds
    for path in folder.glob("*/*"):
        with contextlib.suppress(OSError):  # another host's sweep was first
            if path.stat().st_mtime < end:
                path.unlink()


def _ignore(line: str) -> None:
    """The compiler says nothing."""
