"""What of the file system a plugin, or the build of an environment, sees: lines for ``spawn``.

Two kinds, in the trampoline's language:

* :func:`only` - rung 3: a root of its own in which nothing is but what is named here: the system's
  libraries and programs, a choice of /etc, the files that are shown, folders to write in. A list
  of what is hidden would miss whatever an operator puts beside it,
* :func:`passable` - rung 2: the root of the host, and a way to the shown files where a folder above
  them is closed to other users (an interpreter in the home of root, say).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tidegate.environments import filter_program

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
#: Of /etc what libraries read. Not the rest: other services keep their passwords there.
_ETC: Final = (
    "alternatives", "ca-certificates", "crypto-policies", "fonts", "gai.conf", "group",
    "host.conf", "hostname", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "magic", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki/ca-trust/extracted",
    "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf", "protocols", "resolv.conf",
    "services", "ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_SYS: Final = "/sys/devices/system"  # how many cores: asked by numeric libraries
_SHARED_MEMORY: Final = 64 << 20  # memory that no limit but a cgroup's counts
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - where the plugin's own folder is shown


def only(shown: Mapping[Path, str], scratch: Path) -> tuple[str, ...]:
    """A root with ``shown`` (path: ``r`` or ``w``) and the system; /tmp is ``scratch``."""
    lines = ["n /tmp", "p /proc", *_devices()]
    for path in (*_SYSTEM, _SYS, *(f"/etc/{name}" for name in _ETC)):
        lines += _as_it_is(path)
    lines += [f"w {scratch}\t{path}" for path in _TEMPORARY]
    lines += [f"{mode} {path}" for path, mode in sorted(shown.items())]
    lines += _links(shown, [Path("/")])
    program = filter_program()
    return (*lines, f"s {program.hex()}") if program else tuple(lines)


def passable(shown: Mapping[Path, str]) -> tuple[str, ...]:
    """Nothing where every user could reach what is ``shown``, else a way to it."""
    covered = _outermost(_closed(shown))
    lines = [f"h {path}" for path in covered]
    lines += [f"{m} {p}" for p, m in sorted(shown.items()) if _in(p, covered)]
    return (*lines, *_links(shown, covered))


def _devices() -> list[str]:
    found = [f"w /dev/{name}" for name in _DEVICES]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        found.append(f"l /dev/{name}\t/proc/self/fd/{number}")
    return [*found, "l /dev/fd\t/proc/self/fd", f"t /dev/shm\t{_SHARED_MEMORY}"]


def _as_it_is(path: str) -> list[str]:
    """A link to something of the system stays a link, so that its name can be read."""
    if not os.path.exists(path):
        return []
    real = os.path.realpath(path)
    if os.path.islink(path) and real.startswith("/usr/"):
        return [f"l {path}\t{os.readlink(path)}"]
    return [f"r {path}"]


def _links(shown: Mapping[Path, str], covered: list[Path]) -> Iterable[str]:
    """Symbolic links on the way from an environment's Python to the real one."""
    for path in shown:
        at = path / "bin" / "python"
        for _ in range(8):
            if not at.is_symlink():
                break
            target = Path(os.path.normpath(at.parent / os.readlink(at)))
            if target.parent != Path(os.path.realpath(target.parent)):
                yield from _folder_links(target.parent, covered)
            if target.is_symlink() and _in(target, covered):
                yield f"l {target}\t{os.readlink(target)}"
            at = target


def _folder_links(folder: Path, covered: list[Path]) -> Iterable[str]:
    """Those of ``folder`` and its parents that are links and would be missed."""
    for one in (*reversed(folder.parents), folder):
        if one.is_symlink() and _in(one, covered):
            yield f"l {one}\t{os.path.realpath(one)}"


def _closed(shown: Iterable[Path]) -> list[Path]:
    """Folders that another user could not pass on the way to what is shown."""
    found = []
    for path in shown:
        for parent in reversed(path.parents):
            with contextlib.suppress(OSError):  # gone: the start will say so
                if not parent.stat().st_mode & 0o001:
                    found.append(parent)
                    break
    return found


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Without those that lie in another one of them."""
    found: list[Path] = []
    for folder in sorted(set(folders)):
        if not _in(folder, found):
            found.append(folder)
    return found


def _in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(one) for one in folders)
