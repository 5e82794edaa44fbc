"""What stands between a plugin and everything else: a ladder of four rungs (docs/isolation).

| rung | a plugin has                                               | needs                     |
|------|------------------------------------------------------------|---------------------------|
| 0    | its own session, a bare environment, no new privileges     | nothing                   |
| 1    | and limits on memory, processes, descriptors               | nothing                   |
| 2    | and a user of its own: no file, process or memory of others| host started as root      |
| 3    | and a root, processes and IPC of its own, fewer system calls | namespaces              |

A rung contains those below it, but for the user at rung 3 of a host that is not root: there the
plugin has the host's user, in a user namespace and behind walls where nothing of the host is.
Each rung is tried once, with a real process, when the host starts.

Environments are built behind the same walls from rung 2 on, by users of their own: packages that
come as source are built by code of theirs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from gevent import get_hub, monkey

from tidegate.environments import Confine, ReadEnd, Walls, filter_program, give, spawn
from tidegate.errors import StartRefused
from tidegate.hosts import cgroups, views
from tidegate.hosts.launch import Box, Places, Prepared
from tidegate.hosts.uids import Uids
from tidegate.settings import Settings

RUNGS: Final = (0, 1, 2, 3)
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROBE_SECONDS: Final = 10.0
#: More threads than processes: the SDK alone may have a thousand.
_THREADS: Final = 4096
#: A build that needs more of these is out of hand, whatever the plugin's own limits are.
_BUILD_LIMITS: Final = {"nofile": 65536, "core": 0, "nproc": 8192}
#: Which index uv asks, where the machine says so.
_BUILD_SETTINGS: Final = (Path("/etc/uv"),)
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

    def box(self, prepared: Prepared, places: Places) -> Box:
        """How ``prepared`` is started; its folders are its own afterwards.

        Called by an instance before its start, in a greenlet: it may wait. PluginStartFailed when
        no user id is left, OSError when its files cannot be given to it.
        """
        rung = self.rung
        if rung < 2:
            return Box(rung)
        uid = self._uids.of(prepared.plugin_id) if os.getuid() == 0 else None
        self._give((prepared.folder, places.home, places.scratch), uid)
        own = {"uid": uid} if uid is not None else {}
        limits = {**own, **self._processes()} if own else {}
        shown = self._shown(prepared, places)
        if rung == 2:
            writable = dict.fromkeys((prepared.folder, places.scratch), "w")
            return Box(rung, uid, limits, views.passable({**shown, **writable}))
        return Box(rung, uid, limits, views.only(shown, places.scratch), "/tmp")  # noqa: S108

    @property
    def confine(self) -> Confine | None:
        """Around the builds of environments; None where they run as the host does."""
        return self._walls if self.rung >= 2 else None

    def _walls(self, shown: Mapping[Path, str], scratch: Path, user: str) -> Walls:
        uid = self._uids.of(user) if os.getuid() == 0 else None
        writable = [path for path, mode in shown.items() if mode == "w"]
        self._give((scratch, *writable), uid)
        limits = {**_BUILD_LIMITS, "uid": uid} if uid is not None else {}
        everything = {**self._outside(), **shown}
        everything |= {path: "r" for path in _BUILD_SETTINGS if path.exists()}
        if self.rung == 2:
            view = views.passable({**everything, scratch: "w"})
            return Walls(limits, view, str(scratch))
        return Walls(limits, views.only(everything, scratch), "/tmp")  # noqa: S108

    def report(self) -> dict[str, Any]:
        """What ``status`` and ``doctor`` say of it."""
        return {
            "rung": self.rung,
            "asked": self._settings.tidegate_isolation,
            "why_not": {str(rung): why for rung, why in self.why_not.items()},
            "cgroup": str(self.cgroup_root or ""),
            "why_no_cgroup": self.why_no_cgroup,
            "system_calls": "filtered" if self.rung == 3 and filter_program() else "all",
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
            secret, scratch = Path(folder, "secret"), Path(folder, "scratch")
            secret.touch(0o600)
            scratch.mkdir()
            limits = {"uid": first} if root else {}
            if rung == 2:
                return _probe(f"! test -r {secret}", limits, ())
            # Nothing of the host is there, the first processes are its own, /tmp is its folder.
            test = f"! test -e {folder} && test $$ -lt 9 && test -d /tmp && test -c /dev/null"
            return _probe(test, limits, views.only({}, scratch))

    def _processes(self) -> dict[str, int]:
        processes = self._settings.tidegate_plugin_processes
        return {"nproc": processes + _THREADS} if processes else {}

    def _give(self, folders: tuple[Path, ...], uid: int | None) -> None:
        for folder in folders if uid is not None else ():
            get_hub().threadpool.apply(give, (folder, uid))

    # ------------------------------------------------------------------ what is shown

    def _shown(self, prepared: Prepared, places: Places) -> dict[Path, str]:
        """What a plugin needs to see, and whether it may write there.

        At rung 3 not in its own code: a call that breaks in must not stay for the next tenant's.
        """
        library = Path(os.path.realpath(prepared.python)).parent.parent
        shown = {prepared.folder: "r", prepared.environment: "r", library: "r"}
        return {**self._outside(), **shown, places.home: "w"}

    def _outside(self) -> dict[Path, str]:
        """Certificates that the environment names, and what the operator shows to all."""
        files = [self._environ.get(name, "") for name in _CERTIFICATES]
        shown: dict[Path, str] = {}
        for file in (*files, *self._settings.tidegate_plugin_paths):
            if file and os.path.exists(file):
                shown |= {Path(file): "r", Path(os.path.realpath(file)): "r"}
        return shown


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
    try:
        ended = child.wait(_PROBE_SECONDS)
        # Before it is read: one that hangs says nothing, and the host would never start.
        child.kill()
        said = pipe.read(4096).decode("utf-8", "replace").strip()
    finally:
        child.kill()
        pipe.close()
    if ended is None or ended.code != 0 or said:
        # Of the trampoline's "cannot start X: [Errno N] what: why" the what and why.
        return said.rpartition("] ")[2] or f"a process at this rung ended with {ended}"
    return ""
