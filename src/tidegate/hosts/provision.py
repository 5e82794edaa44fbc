"""From an identifier to a plugin that can be started: package, folder, environment.

    <working path>/<author>/<name>-<version>@<checksum>/    the extracted package, the plugin's cwd
                            .<name>-<version>@<checksum>.json   what the host has to know of it
                            .tmp-<name>-…/                  being extracted; renamed when whole

The package comes from the blob store, so a host that has nothing on its disk builds what a call
asks for.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, final
from weakref import WeakValueDictionary

from gevent import get_hub
from gevent.lock import BoundedSemaphore

from tidegate.environments import Environments, Progress
from tidegate.errors import (
    BlobMissing,
    EnvironmentFailed,
    PackageRejected,
    PluginStartFailed,
    TidegateError,
)
from tidegate.hosts.launch import Prepared, own_folder, prefixes_of
from tidegate.hosts.waiting import NOT_FOUND
from tidegate.ids import PluginIdentifier
from tidegate.packages import open_package
from tidegate.settings import Settings
from tidegate.telemetry.logs import get_log

log = get_log("hosts")

#: Changes when the facts do, so that what an older host wrote is unpacked anew.
_FORMAT: Final = 2
_numbers = itertools.count()


class Packages(Protocol):
    """The part of the blob store that the host uses."""

    def load(self, key: str) -> bytes:
        """Content of ``key``; BlobMissing or BlobUnavailable."""


class PackageMissing(PluginStartFailed):
    """The blob store has no package of that identifier."""


@final
class Provision:
    """Prepares plugins below one working path. Methods may take minutes and raise TidegateError."""

    def __init__(self, settings: Settings, blobs: Packages, environments: Environments) -> None:
        self._settings = settings
        self._blobs = blobs
        self._environments = environments
        self._prepared: dict[str, Prepared] = {}
        # Held by who uses it: any identifier may be called, also one of which there is no package.
        self._busy: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()

    def prepare(self, identifier: str, progress: Progress) -> Prepared:
        """Everything that a start needs, built where it is not there.

        Called by supervisors and by the control call of that name; at once they are one build.
        Raises PackageMissing when there is no such package, PackageRejected, EnvironmentFailed.
        """
        # Per version: who waits for one that builds for minutes must not hold up another.
        busy = self._busy.setdefault(identifier, BoundedSemaphore(1))
        if busy.locked():
            progress("environment", "waiting: it is being built already")
        with busy:
            known = self._prepared.get(identifier)
            if known is None or not _is_whole(known):
                known = self._prepared[identifier] = self._prepare(identifier, progress)
            return known

    def is_built(self, identifier: str) -> bool:
        """Whether folder and environment are on the disk. Quick; True promises a quick start."""
        parsed = PluginIdentifier.parse(identifier)
        known = self._prepared.get(identifier)
        if known is not None and _is_whole(known):
            return True
        folder = self._settings.working_path / parsed.folder
        return _read_facts(folder) is not None and self._environments.has(_user(parsed))

    def _prepare(self, identifier: str, progress: Progress) -> Prepared:
        parsed = PluginIdentifier.parse(identifier)
        folder = self._settings.working_path / parsed.folder
        facts = _read_facts(folder)
        fresh = facts is None
        if facts is None:
            progress("unpack", f"unpacking {identifier}")
            facts = self._unpack(parsed, folder)
        if facts["language"] != "python":
            raise EnvironmentFailed(f"plugins in {facts['language']} cannot be run, only python")
        environment = self._environments.ensure(
            folder,
            python=facts["python"],
            checksum=parsed.checksum,
            user=_user(parsed),
            progress=progress,
        )
        if fresh:
            self._environments.compile_folder(environment, folder)
        return Prepared(
            identifier=identifier,
            plugin_id=parsed.plugin_id,
            folder=folder,
            environment=environment.folder,
            python=environment.python,
            entrypoint=facts["entrypoint"],
            prefixes=prefixes_of(folder, environment.folder, environment.prefix),
            permission=json.loads(facts["permission"]),
        )

    def remove(self, identifier: str) -> None:
        """Delete the plugin's folder, and its environment when nobody else uses it."""
        with self._busy.setdefault(identifier, BoundedSemaphore(1)):
            self._remove(PluginIdentifier.parse(identifier))

    def _remove(self, parsed: PluginIdentifier) -> None:
        self._prepared.pop(str(parsed), None)
        # Facts first and the folder by a rename: killed anywhere in here, it is there or gone.
        folder = self._settings.working_path / parsed.folder
        _facts_of(folder).unlink(missing_ok=True)
        if folder.exists():
            doomed = folder.with_name(f".tmp-gone-{os.getpid()}-{folder.name}")
            _clear(doomed)
            folder.rename(doomed)
            _clear(doomed)
        self._environments.release(_user(parsed))
        if not any(_is_of(one, parsed.plugin_id) for one in folder.parent.glob("*@*")):
            # No version is left: what it wrote goes as well, and a namesake starts afresh.
            _clear(own_folder(parsed.plugin_id, self._settings))

    def package(self, identifier: str) -> bytes:
        """An uploaded package. PackageMissing, or PluginStartFailed when the store is away."""
        return self._load(PluginIdentifier.parse(identifier))

    def sweep(self) -> None:
        """Delete what was being unpacked, built or removed when a host was killed."""
        # not below .environments: another host may be building there, and they know whether
        for folder in self._settings.working_path.glob("[!.]*/.tmp-*"):
            _clear(folder)
        if self._is_ours:
            # Of instances and builds that a killed host had no time to clean up after.
            for scratch in self._settings.working_path.glob(".scratch/*/*/tmp-*"):
                _clear(scratch)
            for scratch in self._settings.working_path.glob(".scratch/build-*"):
                _clear(scratch)
            self._environments.release_former()
        self._environments.sweep()
        for user in self._environments.users():
            if not (self._settings.working_path / user.replace("+", "/")).exists():
                self._environments.release(user)

    @property
    def _is_ours(self) -> bool:
        """Whether no other host can be at work in the working path."""
        return self._settings.working_path.is_relative_to(self._settings.home.root)

    def held(self) -> list[str]:
        """Versions whose folders are on the disk and are this Tidegate's own.

        Empty when the working path lies outside of the data folder: then others may use it too.
        """
        root = self._settings.working_path
        if not self._is_ours:
            return []
        facts = (_read_facts(folder) for folder in root.glob("*/*@*"))
        return sorted(one["identifier"] for one in facts if one and "identifier" in one)

    def _unpack(self, parsed: PluginIdentifier, folder: Path) -> dict[str, str]:
        data = self._load(parsed)
        # Numbered: nothing of an earlier try may be in it, whatever became of that.
        temporary = folder.with_name(f".tmp-{os.getpid()}-{next(_numbers)}-{folder.name}")
        limit = self._settings.max_plugin_package_size
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Unpacking is computation and much writing: not in the hub's thread.
            facts: dict[str, str] = _apart(_extract, (data, limit, parsed, temporary))
            if folder.exists():  # extracted by something else, or a marker was lost
                _clear(folder)
            # Facts before the folder: together they mean that it is whole (_read_facts). And not
            # before that other one is gone: a host killed right here would take it for this.
            _facts_of(folder).write_text(json.dumps(facts), encoding="utf-8")
            temporary.rename(folder)
        except OSError as error:
            _clear(temporary)
            raise EnvironmentFailed(f"package cannot be unpacked: {error}") from error
        except BaseException:  # refused, or the plugin is being stopped
            _clear(temporary)
            raise
        return facts

    def _load(self, parsed: PluginIdentifier) -> bytes:
        settings = self._settings
        problem: TidegateError | None = None
        # Two places, as in the reference; the error of the first one says more.
        for prefix in (settings.plugin_package_cache_path, settings.plugin_installed_path):
            try:
                return self._blobs.load(f"{prefix}/{parsed}")
            except TidegateError as error:
                problem = problem or error
        kind = PackageMissing if isinstance(problem, BlobMissing) else PluginStartFailed
        raise kind(f"{NOT_FOUND}: the package of {parsed} cannot be loaded: {problem}") from problem


def _apart(work: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """Done in a native thread. Who is killed meanwhile still waits for it: a thread cannot be
    ended, and would go on writing where somebody else begins or cleans up."""
    running = get_hub().threadpool.spawn(work, *given)
    try:
        return running.get()
    except BaseException:
        running.wait()
        raise


def _extract(data: bytes, limit: int, parsed: PluginIdentifier, temporary: Path) -> dict[str, str]:
    package = open_package(data, limit=limit)
    if package.identifier != parsed:
        raise PackageRejected(f"the package stored as {parsed} is {package.identifier}")
    temporary.mkdir()
    package.extract_to(temporary)
    runner = package.runner
    return {
        "format": str(_FORMAT),
        "identifier": str(parsed),
        "language": runner.language,
        "python": runner.version,
        "entrypoint": runner.entrypoint,
        "permission": json.dumps(package.manifest.values["resource"].get("permission") or {}),
    }


def _is_of(folder: Path, plugin_id: str) -> bool:
    facts = _read_facts(folder)
    return facts is not None and facts.get("identifier", "").startswith(f"{plugin_id}:")


def _facts_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.json")


def _read_facts(folder: Path) -> dict[str, str] | None:
    if not folder.is_dir():
        return None
    try:
        facts = json.loads(_facts_of(folder).read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("format") == str(_FORMAT) else None


def _is_whole(prepared: Prepared) -> bool:
    """Whether what was prepared earlier is still on the disk."""
    folder = prepared.folder
    return folder.is_dir() and _facts_of(folder).exists() and os.access(prepared.python, os.X_OK)


def _user(parsed: PluginIdentifier) -> str:
    return parsed.folder.replace("/", "+")


def _clear(folder: Path) -> None:
    if folder.exists():
        get_hub().threadpool.apply(shutil.rmtree, (folder,), {"ignore_errors": True})
