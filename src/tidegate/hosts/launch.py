"""What a plugin process is given: command, environment, limits. An allow-list, nothing else.

The host's own environment holds keys and passwords; a plugin sees none of them. It gets its
environment's Python first in PATH, a home folder of its own, language and zone, proxies and
certificates, and what ``TIDEGATE_PLUGIN_ENV`` names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from gevent import get_hub

from tidegate.environments import Child, proxies, spawn
from tidegate.settings import Settings

#: The pipe to a plugin: a request of 64 KiB and more goes in one write. The pipes from it are as
#: they come until it floods (``reading``): a user's pipes are counted by what they could hold,
#: and beyond 64 MiB in all each new one would hold 8 KiB.
INPUT_SIZE: Final = 256 << 10
_PASSED: Final = (
    "LANG", "LC_ALL", "TZ",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_DATA_SPARE: Final = 1 << 30
#: Folders of the system, not ours: to take them out would only garble what a plugin says.
_SYSTEM: Final = ("/usr", "/usr/local", "/opt")


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """A plugin that can be started: its folder, its environment, its entry point.

    ``prefixes`` are folders of ours that may occur in what it says; :meth:`scrub` takes them out.
    ``permission`` is what its manifest asks for: which back-calls it may make.
    """

    identifier: str
    plugin_id: str
    folder: Path
    environment: Path
    python: Path
    entrypoint: str
    prefixes: tuple[bytes, ...]
    permission: Mapping[str, Any] = field(default_factory=dict)

    def scrub(self, text: bytes) -> bytes:
        """``text`` without our paths: file names become relative to the plugin or its library."""
        for prefix in self.prefixes:
            if prefix in text:
                text = text.replace(prefix, b"")
        return text


@final
@dataclass(frozen=True, slots=True)
class Box:
    """How a plugin is kept apart (hosts/isolation): what ``spawn`` is told beside its command."""

    rung: int
    uid: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    view: tuple[str, ...] = ()
    #: Where its scratch folder is for itself; empty for its place on the host.
    temporary: str = ""


@final
@dataclass(frozen=True, slots=True)
class Places:
    """Folders of one instance: ``home`` is the plugin's for all its instances and versions,
    ``scratch`` its own, gone when it ends."""

    home: Path
    scratch: Path


def prefixes_of(*folders: Path | str) -> tuple[bytes, ...]:
    """Those folders as prefixes for :meth:`Prepared.scrub`, real paths too, longest first."""
    found = set()
    for folder in folders:
        if str(folder).strip("/") and str(folder) not in _SYSTEM:
            found |= {f"{folder}/".encode(), f"{os.path.realpath(folder)}/".encode()}
    return tuple(sorted(found, key=len, reverse=True))


def places_of(prepared: Prepared, settings: Settings) -> Places:
    """Folders for one more instance, made when they are not there. OSError.

    The folder around them stays the host's own: a plugin that could rename its home would lead
    the next start, which may be root's, by a link to anywhere.
    """
    around = own_folder(prepared.plugin_id, settings)
    around.mkdir(mode=0o711, parents=True, exist_ok=True)
    home = around / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    return Places(home, Path(tempfile.mkdtemp(prefix="tmp-", dir=around)))


def own_folder(plugin_id: str, settings: Settings) -> Path:
    """What a plugin wrote, whatever its version. ``provision`` deletes it with the last one."""
    return settings.working_path / ".scratch" / plugin_id


def clear_scratch(places: Places) -> None:
    """The instance ended: what it left in its scratch folder goes. Waits, in a greenlet."""
    get_hub().threadpool.apply(shutil.rmtree, (places.scratch,), {"ignore_errors": True})


def start_process(
    prepared: Prepared, settings: Settings, environ: Mapping[str, str], box: Box, places: Places
) -> Child:
    """Start the plugin's process. OSError when the system has none to give."""
    return spawn(
        [str(prepared.python), "-m", prepared.entrypoint],
        folder=prepared.folder,
        environment=plugin_environment(prepared, settings, environ, box, places),
        limits={**_limits(settings, box.rung), **box.limits},
        view=box.view,
        input_size=INPUT_SIZE,
    )


def plugin_environment(
    prepared: Prepared, settings: Settings, environ: Mapping[str, str], box: Box, places: Places
) -> dict[str, str]:
    """All variables that the plugin sees."""
    names = (*_PASSED, *settings.tidegate_plugin_env)
    found = {name: environ[name] for name in names if environ.get(name)}
    found |= proxies(settings, environ)
    found.setdefault("LANG", "C.UTF-8")
    found["PATH"] = os.pathsep.join([str(prepared.python.parent), environ.get("PATH") or _PATH])
    found["HOME"] = str(places.home)
    found["TMPDIR"] = box.temporary or str(places.scratch)
    found["VIRTUAL_ENV"] = str(prepared.environment)
    found["INSTALL_METHOD"] = "local"
    found["PYTHONUNBUFFERED"] = "1"
    return found


def _limits(settings: Settings, rung: int) -> dict[str, int]:
    """rlimits: descriptors, no core files, and a stop for what allocates faster than care looks.

    The data limit holds per process and counts what is only reserved (stacks of threads), so it
    is far above the limit that ``care`` keeps on what is used.
    """
    if rung == 0:
        return {}
    limits = {"nofile": settings.tidegate_plugin_open_files, "core": 0}
    if settings.tidegate_plugin_memory:
        limits["data"] = 2 * settings.tidegate_plugin_memory + _DATA_SPARE
    return limits
