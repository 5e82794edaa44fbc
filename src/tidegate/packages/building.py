"""Building a package from a plugin's folder (spec/plugin/08 section 11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tidegate.errors import PackageRejected
from tidegate.packages.ignore_rules import IgnoreRules
from tidegate.packages.manifest import MANIFEST
from tidegate.packages.manifest_rules import manifest_faults
from tidegate.packages.package import Package, open_package
from tidegate.packages.writing import write_archive

DEFAULT_LIMIT = 52428800
# What tools leave in a folder; no package should hold it, whatever the ignore file says.
_LITTER = {".git", ".venv", "__pycache__", ".uv-cache", ".DS_Store"}
_IGNORE_FILES = (".difyignore", ".gitignore")


def build_package(
    folder: Path, *, extra: Mapping[str, bytes] | None = None, limit: int = DEFAULT_LIMIT
) -> bytes:
    """The bytes of a package with the files of ``folder``; equal folders give equal bytes.

    Honours ``.difyignore``, else ``.gitignore``. ``extra`` adds files (or replaces some), such as
    a ``requirements.txt`` for hosts that know no lock file. What is built has been opened again:
    manifest by its full rules, declaration and icons. PackageRejected says what is wrong,
    OSError when the folder cannot be read.
    """
    files = {path: (folder / path).read_bytes() for path in _files_of(folder)}
    files |= extra or {}
    if MANIFEST not in files:
        raise PackageRejected(f"{folder} has no {MANIFEST}: it is no plugin's folder")
    if sum(map(len, files.values())) > limit:
        raise PackageRejected(_too_large(files, limit))
    # In the order of bytes, on every machine: a folder's own order is that of its file system.
    data = write_archive({name: files[name] for name in sorted(files, key=str.encode)})
    # Opened again as a server would: what packs and does not install helps nobody.
    _check(open_package(data, limit=limit))
    return data


def _files_of(folder: Path) -> list[str]:
    rules = IgnoreRules()
    for name in _IGNORE_FILES:
        if (folder / name).is_file():
            rules = IgnoreRules((folder / name).read_text(encoding="utf-8"))
            break
    return list(_walk(folder, "", rules))


def _walk(folder: Path, inside: str, rules: IgnoreRules) -> Iterator[str]:
    for path in folder.iterdir():
        name = inside + path.name
        is_folder = path.is_dir()
        if path.name in _LITTER or rules.excludes(name, folder=is_folder):
            continue
        if path.is_symlink() and not path.is_file():
            # A link to a file is packed as that file; one to a folder could have no end.
            raise PackageRejected(f"{name} is a symbolic link that leads to no file")
        if is_folder:
            yield from _walk(path, name + "/", rules)
        elif path.is_file():
            yield name


def _check(package: Package) -> None:
    faults = manifest_faults(package.manifest.values)
    if faults:
        raise PackageRejected(f"illegal plugin manifest: {'; '.join(faults)}")
    package.declaration_with_assets(verified=False)


def _too_large(files: Mapping[str, bytes], limit: int) -> str:
    largest = sorted(files, key=lambda name: -len(files[name]))[:5]
    shown = ", ".join(f"{name} ({len(files[name])} bytes)" for name in largest)
    return f"the plugin is larger than {limit} bytes; its largest files are {shown}"
