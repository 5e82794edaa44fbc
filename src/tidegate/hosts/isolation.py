"""What stands between a plugin and everything else: a ladder of four rungs (docs/security).

| rung | a plugin has                                               | needs                     |
|------|------------------------------------------------------------|---------------------------|
| 0    | its own session, a bare environment, no new privileges     | nothing                   |
| 1    | and limits on memory, processes, descriptors               | nothing                   |
| 2    | and a user of its own: no file, process or memory of others| host started as root      |
| 3    | and a view of its own: no folders of the host, a bare /tmp | mount namespaces          |

A rung contains those below it, but for the user at rung 3 of a host that is not root: there the
plugin is in a user namespace, from which it cannot look into processes outside.
Each rung is tried once, with a real process, when the host starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, final

from gevent import get_hub, monkey

from tidegate.environments import ReadEnd, spawn
from tidegate.errors import PluginStartFailed, StartRefused
from tidegate.hosts import cgroups
from tidegate.hosts.launch import Box, Prepared
from tidegate.runtime.home import write_whole
from tidegate.settings import Settings

RUNGS: Final = (0, 1, 2, 3)
#: Folders that hold what is none of a plugin's business; /run has the sockets of the machine.
_HIDDEN: Final = ("/root", "/run")
_SCRATCH: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - hidden, not used
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROBE_SECONDS: Final = 10.0
#: More threads than processes: the SDK alone may have a thousand.
_THREADS: Final = 4096
_close = monkey.get_original("os", "close")


@final
class Isolation:
    """The rung of a host. Made once, by ``PluginHost``; tries the rungs when first asked."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._rung: int | None = None
        self._uids = Uids(settings)
        self.why_not: dict[int, str] = {}
        self.why_no_cgroup = ""

    @property
    def rung(self) -> int:
        """The rung that plugins are started at. StartRefused when the one asked for fails."""
        if self._rung is None:
            self._rung = self._choose()
        return self._rung

    @property
    def cgroup_root(self) -> Path | None:
        """The delegated folder, when there is one."""
        root = self._settings.tidegate_plugin_cgroup
        return Path(root) if root and self.rung and not self.why_no_cgroup else None

    def box(self, prepared: Prepared, home: Path) -> Box:
        """How ``prepared`` is started; its folders are its own afterwards.

        Called by an instance before its start, in a greenlet: it may wait. PluginStartFailed when
        this plugin's files cannot be reached at this rung.
        """
        rung = self.rung
        if rung < 2:
            return Box(rung)
        uid = self._uids.of(prepared.plugin_id) if os.getuid() == 0 else None
        if uid is not None:
            for folder in (prepared.folder, home, home / "tmp"):
                get_hub().threadpool.apply(_give, (folder, uid))
        shown = self._shown(prepared, home)
        view = tuple(self._view(shown, rung))
        limits = {} if uid is None else {"uid": uid, **self._processes()}
        return Box(rung, uid, limits, view)

    def report(self) -> dict[str, Any]:
        """What ``status`` and ``doctor`` say of it."""
        return {
            "rung": self.rung,
            "asked": self._settings.tidegate_isolation,
            "why_not": {str(rung): why for rung, why in self.why_not.items()},
            "cgroup": str(self.cgroup_root or ""),
            "why_no_cgroup": self.why_no_cgroup,
        }

    # ------------------------------------------------------------------ the rung

    def _choose(self) -> int:
        asked = self._settings.tidegate_isolation
        root = self._settings.tidegate_plugin_cgroup
        self.why_no_cgroup = cgroups.why_not(Path(root)) if root else "none is delegated"
        if asked in ("0", "1"):
            return int(asked)
        wanted = RUNGS[2:] if asked == "auto" else (int(asked),)
        for rung in reversed(wanted):
            why = self._try(rung)
            if not why:
                return rung
            self.why_not[rung] = why
        if asked != "auto":
            raise StartRefused(
                f"TIDEGATE_ISOLATION={asked} cannot be had here: {self.why_not[int(asked)]}"
            )
        return 1

    def _try(self, rung: int) -> str:
        """Why a rung cannot be had; empty when a process on it sees what it should."""
        root = os.getuid() == 0
        if rung == 2 and not root:
            return "the host is not started as root"
        try:
            first, _ = self._uids.range
        except ValueError as error:
            return str(error)
        with tempfile.TemporaryDirectory(prefix="tidegate-probe-") as folder:
            secret = Path(folder, "secret")
            secret.touch(0o600)
            limits = {"uid": first} if root else {}
            view = () if rung == 2 else (f"h {folder}",)
            return _probe(f"! test -r {secret}", limits, view)

    def _processes(self) -> dict[str, int]:
        processes = self._settings.tidegate_plugin_processes
        return {"nproc": processes + _THREADS} if processes else {}

    # ------------------------------------------------------------------ the view

    def _shown(self, prepared: Prepared, home: Path) -> dict[Path, str]:
        """What a plugin needs to see, and whether it may write there."""
        shown = {prepared.folder: "w", home: "w", prepared.environment: "r"}
        shown |= {prefix: "r" for prefix in _prefixes(prepared.python)}
        files = [self._environ.get(name, "") for name in _CERTIFICATES]
        for file in (*files, "/etc/resolv.conf", "/etc/localtime"):
            if file and os.path.exists(file):
                shown[Path(os.path.realpath(file))] = "r"
        return shown

    def _view(self, shown: Mapping[Path, str], rung: int) -> Iterable[str]:
        hidden = self._hidden() if rung == 3 else _closed(shown)
        scratch = [path for path in _SCRATCH if os.path.isdir(path)] if rung == 3 else []
        covered = _outermost([*hidden, *map(Path, scratch)])
        for path in covered:
            yield f"{'t' if str(path) in scratch else 'h'} {path}"
        for path, mode in sorted(shown.items()):
            if any(path.is_relative_to(one) for one in covered):
                yield f"{mode} {path}"
        yield from _links(shown, covered)

    def _hidden(self) -> list[Path]:
        settings = self._settings
        own = [settings.home.root, settings.working_path, settings.blob_root]
        folders = [*own, Path.home(), *map(Path, _HIDDEN)]
        real = [Path(os.path.realpath(folder)) for folder in folders]
        return [path for path in real if path.is_dir() and path != Path("/")]


@final
class Uids:
    """A user id for each plugin, the same at every start. Kept in the working path."""

    def __init__(self, settings: Settings) -> None:
        self._text = settings.tidegate_plugin_uids
        self._path = settings.working_path / ".uids.json"

    @property
    def range(self) -> tuple[int, int]:
        """First and last of the range; ValueError when the setting is none."""
        first, _, last = self._text.partition("-")
        if first.isdigit() and last.isdigit() and 0 < int(first) <= int(last):
            return int(first), int(last)
        raise ValueError(f"TIDEGATE_PLUGIN_UIDS takes first-last, not {self._text!r}")

    def of(self, plugin_id: str) -> int:
        """The plugin's own; PluginStartFailed when none is left."""
        known = self._known()
        if plugin_id not in known:
            first, last = self.range
            taken = set(known.values())
            free = next((uid for uid in range(first, last + 1) if uid not in taken), None)
            if free is None:
                raise PluginStartFailed(f"no user id is left for it (TIDEGATE_PLUGIN_UIDS {last})")
            known[plugin_id] = free
            write_whole(self._path, json.dumps(known).encode())
        return known[plugin_id]

    def _known(self) -> dict[str, int]:
        first, last = self.range
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {name: uid for name, uid in found.items() if first <= uid <= last}


def _probe(test: str, limits: Mapping[str, int], view: tuple[str, ...]) -> str:
    """Run a shell's ``test`` so; its last words when it fails."""
    try:
        child = spawn(
            ["/bin/sh", "-c", f"{test} || echo it sees what it must not"],
            folder=Path("/"),
            environment={"PATH": "/usr/bin:/bin"},
            limits=limits,
            view=view,
            merge=True,
        )
    except OSError as error:
        return str(error)
    _close(child.stdin)
    pipe = ReadEnd(child.stdout)
    ended = child.wait(_PROBE_SECONDS)
    said = pipe.read(4096).decode("utf-8", "replace").strip()
    child.kill()
    pipe.close()
    if ended is None or ended.code != 0 or said:
        return said.rpartition(": ")[2] if ended and ended.code == 127 else said or str(ended)
    return ""


def _give(folder: Path, uid: int) -> None:
    """Make ``folder`` the plugin's own, once. Links are given, not what they point to."""
    if folder.stat().st_uid == uid:
        return
    for root, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(os.path.join(root, name), uid, uid, follow_symlinks=False)
    os.chown(folder, uid, uid)


def _prefixes(python: Path) -> set[Path]:
    """Where the interpreter that an environment's Python stands for lives."""
    real = Path(os.path.realpath(python))
    return {real.parent.parent}


def _links(shown: Mapping[Path, str], covered: list[Path]) -> Iterable[str]:
    """Symbolic links on the way from an environment's Python to the real one."""
    for path in shown:
        at = path / "bin" / "python"
        for _ in range(8):
            if not at.is_symlink():
                break
            target = Path(os.path.normpath(at.parent / os.readlink(at)))
            folder = target.parent
            real = Path(os.path.realpath(folder))
            if folder != real and any(target.is_relative_to(one) for one in covered):
                yield from _folder_links(folder, covered)
            if target.is_symlink() and any(target.is_relative_to(one) for one in covered):
                yield f"l {target}\t{os.readlink(target)}"
            at = target


def _folder_links(folder: Path, covered: list[Path]) -> Iterable[str]:
    """Those of ``folder`` and its parents that are links and would be missed."""
    for one in (*reversed(folder.parents), folder):
        if one.is_symlink() and any(one.is_relative_to(cover) for cover in covered):
            yield f"l {one}\t{os.path.realpath(one)}"


def _closed(shown: Iterable[Path]) -> list[Path]:
    """Folders that another user could not pass on the way to what is shown."""
    found = []
    for path in shown:
        for parent in reversed(path.parents):
            with contextlib.suppress(OSError):
                if not parent.stat().st_mode & 0o001:
                    found.append(parent)
                    break
    return found


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Without those that lie in another one of them."""
    found: list[Path] = []
    for folder in sorted(set(folders)):
        if not any(folder.is_relative_to(one) for one in found):
            found.append(folder)
    return found
