"""What an environment consists of, as a key: equal keys may share one environment.

A lock names every package with its hashes, and the project itself only by its dependencies; so
plugins with the same lock but another name, version or description share. What cannot be told
from the lock (sources below the plugin's own folder) makes the key the package's own.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

_OWN_SOURCES: Final = ("virtual", "editable", "directory", "path")
_FILE_LIMIT: Final = 32 << 20


@final
@dataclass(frozen=True, slots=True)
class Project:
    """The dependency files of an extracted package.

    ``kind`` is ``lock`` (uv.lock is obeyed), ``project`` (pyproject.toml is resolved) or
    ``requirements``; ``closure`` stands for everything that decides what is installed.
    ``local`` means that sources below the folder are installed as well.
    """

    folder: Path
    kind: str
    requires_python: str
    closure: str
    local: bool


def read_project(folder: Path, settings: Settings, checksum: str, mirror: str = "") -> Project:
    """Look at the dependency files of ``folder``. EnvironmentFailed when there are none.

    ``checksum`` is the package's: it is part of the closure when local sources are. With a
    ``mirror`` requirements.txt comes first: a lock names the files of the official index.
    """
    requirements = folder / "requirements.txt"
    pyproject = folder / "pyproject.toml"
    if requirements.is_file() and (mirror or not pyproject.is_file()):
        return _requirements(folder, requirements, settings, checksum)
    if not pyproject.is_file():
        raise EnvironmentFailed(
            "neither pyproject.toml nor requirements.txt found in plugin directory"
        )
    project = _toml(pyproject)
    lock = folder / "uv.lock"
    requires = str(_table(project, "project").get("requires-python", ""))
    if lock.is_file() and not settings.plugin_ignore_uv_lock:
        return _locked(folder, project, _toml(lock), requires, settings, checksum)
    parts = [
        _table(project, "project").get("dependencies"),
        project.get("dependency-groups"),
        _table(_table(project, "tool"), "uv"),
        requires,
    ]
    local = bool(_table(_table(_table(project, "tool"), "uv"), "sources"))
    return _project(folder, "project", requires, parts, settings, checksum if local else "")


def _locked(
    folder: Path,
    project: dict[str, Any],
    lock: dict[str, Any],
    requires: str,
    settings: Settings,
    checksum: str,
) -> Project:
    name = _normal(str(_table(project, "project").get("name", "")))
    packages = [entry for entry in lock.get("package", []) if isinstance(entry, dict)]
    roots = [p for p in packages if _is_root(p, name)]
    # Without the plugin itself: its name and version must not make an environment of its own.
    others = [p for p in packages if not _is_root(p, name)]
    local = any(key in _table(p, "source") for p in others for key in _OWN_SOURCES)
    parts = [
        [[root.get("dependencies"), root.get("dependency-groups")] for root in roots],
        others,
        _table(_table(project, "tool"), "uv"),
    ]
    return _project(folder, "lock", requires, parts, settings, checksum if local else "")


def _is_root(package: dict[str, Any], name: str) -> bool:
    source = _table(package, "source")
    own = source.get("virtual", source.get("editable"))
    return own == "." and _normal(str(package.get("name", ""))) == name


def _requirements(folder: Path, path: Path, settings: Settings, checksum: str) -> Project:
    text = _read(path).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    # Options (-r, -c, -e) and relative paths reach into the package's own folder.
    local = any(line.startswith(("-", ".", "/")) or "file:" in line for line in wanted)
    pyproject = folder / "pyproject.toml"
    requires = ""
    if pyproject.is_file():
        requires = str(_table(_toml(pyproject), "project").get("requires-python", ""))
    return _project(folder, "requirements", requires, wanted, settings, checksum if local else "")


def _project(
    folder: Path, kind: str, requires: str, parts: Any, settings: Settings, checksum: str
) -> Project:
    # Extra arguments may change what is installed, so they are part of what it is.
    known = [kind, parts, settings.pip_extra_args, checksum]
    text = json.dumps(known, sort_keys=True, default=str)
    closure = hashlib.sha256(text.encode()).hexdigest()
    return Project(folder, kind, requires, closure, local=bool(checksum))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvironmentFailed(f"{path.name} cannot be read: {error}") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_FILE_LIMIT + 1)
    if len(data) > _FILE_LIMIT:
        raise EnvironmentFailed(f"{path.name} is larger than {_FILE_LIMIT} bytes")
    return data


def _table(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
