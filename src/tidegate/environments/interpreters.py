"""Which Python an environment is made with.

The manifest asks for a minor version (``3.12``). Taken is, in this order: that version where it
is found (``PYTHON_INTERPRETER_PATH``, PATH, the folders of pyenv and uv, the host's own), the
nearest newer one that ``requires-python`` admits, one that uv fetches; else the build fails and
says where it looked.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from tidegate.environments.tool import Tools
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

_NAME: Final = re.compile(r"python3\.(\d{1,2})")
_MINOR: Final = re.compile(r"\s*3\.(\d{1,2})")
_OLDEST: Final = 10  # the SDK needs 3.10 or newer at the very least
_DEFAULT: Final = 12
_ASK: Final = (
    "import json, platform, sys; print(json.dumps([platform.python_version(), "
    "sys.implementation.name, getattr(sys, '_base_executable', sys.executable), "
    "sys.base_prefix, "
    "bool(getattr(sys, '_is_gil_enabled', lambda: True)())]))"
)


@final
@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that runs: its executable, full version and the prefix of its library."""

    path: Path
    version: str
    prefix: str

    @property
    def minor(self) -> int:
        """12 for 3.12.1."""
        return int(self.version.split(".")[1])


@final
class Interpreters:
    """Finds interpreters and remembers which of them run. One per :class:`Environments`."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], tools: Tools) -> None:
        self._settings = settings
        self._environ = environ
        self._tools = tools
        self._known: dict[Path, Interpreter | None] = {}

    def find(self, wanted: str, requires: str) -> Interpreter:
        """The interpreter for a manifest's version and a project's ``requires-python``.

        EnvironmentFailed says what was looked for and where. May take a while: candidates are
        asked once each, and uv may have to download.
        """
        match = _MINOR.match(wanted)
        minor = int(match[1]) if match else _DEFAULT
        admits = _specifiers(requires)
        for candidate in self._in_order(minor):
            found = self._ask(candidate)
            if found and found.minor >= minor and admits.contains(found.version, prereleases=True):
                return found
        return self._fetch(minor, requires)

    def _in_order(self, minor: int) -> list[Path]:
        """The wanted version first, then newer ones, nearest first; places in their order."""
        newer: dict[int, list[Path]] = {}
        for version, path in self._candidates():
            if version >= minor:
                newer.setdefault(version, []).append(path)
        return [path for version in sorted(newer) for path in newer[version]]

    def _candidates(self) -> Iterator[tuple[int, Path]]:
        preferred = self._settings.python_interpreter_path
        if preferred and (found := self._ask(Path(preferred))):
            yield found.minor, found.path
        for folder in self._folders():
            for path in sorted(folder.glob("python3.*")):
                name = _NAME.fullmatch(path.name)
                if name and int(name[1]) >= _OLDEST and os.access(path, os.X_OK):
                    yield int(name[1]), path
        yield sys.version_info.minor, Path(getattr(sys, "_base_executable", sys.executable))

    def _folders(self) -> Iterator[Path]:
        environ = self._environ
        for entry in environ.get("PATH", "").split(os.pathsep):
            if entry:
                yield Path(entry)
        home = Path(environ.get("HOME") or Path.home())
        pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
        data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
        places = [pyenv / "versions", data / "uv/python", self._own_folder()]
        for place in places:
            try:
                versions = sorted(place.iterdir(), reverse=True)
            except OSError:
                continue  # not there, or not ours to read
            for version in versions:
                if _is_plain(version.name):
                    yield version / "bin"

    def _own_folder(self) -> Path:
        return Path(self._tools.environment()["UV_PYTHON_INSTALL_DIR"])

    def _ask(self, path: Path) -> Interpreter | None:
        try:
            key = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        # A shim of pyenv resolves to itself whatever it starts, so its own name is the key.
        key = path if "shims" in path.parts else key
        if key not in self._known:
            self._known[key] = self._run(path)
        return self._known[key]

    def _run(self, path: Path) -> Interpreter | None:
        # -I and -S: nothing of a site-packages or of the folder is run to ask a version.
        command = [str(path.absolute()), "-I", "-S", "-c", _ASK]
        try:
            said = self._tools.run(
                command, folder=Path("/"), on_line=_ignore, silence=10.0, total=10.0
            )
            version, name, executable, prefix, gil = json.loads(said.splitlines()[-1])
        except (EnvironmentFailed, ValueError, IndexError):
            return None  # it does not run: a shim of a version that is gone, another program
        # Wheels of plugins are for CPython, and their C code for a lock that is there.
        if name != "cpython" or not gil:
            return None
        return Interpreter(Path(executable or path), version, prefix)

    def _fetch(self, minor: int, requires: str) -> Interpreter:
        wanted = f"3.{minor}"
        try:
            said: list[str] = []
            self._tools.run_uv(
                ["python", "install", "--no-bin", wanted], folder=Path("/"), on_line=said.append
            )
            # Those that did not run may do so now: a shim of a version that has come.
            self._known = {path: one for path, one in self._known.items() if one is not None}
            for folder in self._own_folder().glob(f"*{wanted}.*/bin/python{wanted}"):
                if found := self._ask(folder):
                    return found
            reason = " ".join(said) or "it fetched none"
        except EnvironmentFailed as error:
            reason = error.message
        asked = f" (requires-python {requires})" if requires else ""
        raise EnvironmentFailed(
            f"no Python {wanted} or newer{asked} found: looked at PYTHON_INTERPRETER_PATH, PATH, "
            f"pyenv and uv's own; and uv could not fetch one: {reason}. Install Python {wanted}, "
            "or set PYTHON_INTERPRETER_PATH"
        )


def _is_plain(name: str) -> bool:
    """Whether a version folder holds a released CPython: ``3.12.1``, ``cpython-3.12.1-linux…``."""
    return bool(re.fullmatch(r"3\.\d+(\.\d+)?|cpython-3\.\d+(\.\d+)?-[\w.-]+", name))


def _specifiers(requires: str) -> SpecifierSet:
    try:
        return SpecifierSet(requires)
    except InvalidSpecifier:
        raise EnvironmentFailed(f"requires-python cannot be read: {requires!r}") from None


def _ignore(line: str) -> None:
    """Nobody wants to read what an interpreter says about itself."""
