"""Bundles: ``.difybndl`` files, which list plugins and may hold their packages.

    manifest.yaml                name, author, …, dependencies
    _assets/<checksum>           a package, named by its checksum

| dependency    | value in the manifest       | what it is reported as |
|---------------|-----------------------------|------------------------|
| github        | ``{repo_pattern}``          | ``{repo_address, repo, release, packages}`` |
| marketplace   | ``{marketplace_pattern}``   | ``{organization, plugin, version}`` |
| package       | ``{path}``: a checksum      | its identifier and manifest, when it is taken |

A bundle is not signed; each package in it is verified by itself (spec/plugin/08 section 12).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, final

from tidegate.errors import PackageRejected
from tidegate.packages.archive import Archive
from tidegate.packages.assets import ASSET_FOLDER
from tidegate.packages.shapes import I18N, Json, Misfit, inside, list_of, members, record, text
from tidegate.packages.yaml_nodes import Node, compose

MANIFEST: Final = "manifest.yaml"
#: More is no bundle that anybody wrote by hand, and each may be a package to decode.
MOST_DEPENDENCIES: Final = 256

_OWNER: Final = r"[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,128}"
_GITHUB: Final = re.compile(rf"({_OWNER}):([^/:]{{1,128}})/([^/]{{1,255}})")
_MARKETPLACE: Final = re.compile(rf"({_OWNER}):([^/:]{{1,128}})")


@final
@dataclass(frozen=True, slots=True)
class Dependency:
    """One plugin of a bundle: ``package`` holds its bytes where ``type`` is ``package``."""

    type: str
    value: dict[str, str]
    package: bytes = field(default=b"", repr=False)


def open_bundle(data: bytes, *, limit: int) -> list[Dependency]:
    """The plugins of a bundle, in its order. ``limit`` bytes bound it packed and unpacked (D-41).

    PackageRejected names every dependency that cannot be understood, or whose package is missing.
    """
    try:
        archive = Archive(data, limit=limit)
        manifest = archive.read(MANIFEST) if MANIFEST in archive else None
    except PackageRejected as error:
        # The same archive reader, but the person holds a bundle in hand.
        text = error.message.replace("difypkg", "difybndl").replace("plugin package", "bundle")
        raise PackageRejected(text, **error.details) from None
    if manifest is None:
        raise PackageRejected(f"difybndl: not a valid difybndl file: there is no {MANIFEST}")
    wanted = _decode(manifest)
    needed = [one.value["path"] for one in wanted if one.type == "package"]
    missing = [name for name in needed if ASSET_FOLDER + name not in archive]
    if missing:
        raise PackageRejected(f"the bundle lacks the packages that it names: {', '.join(missing)}")
    return list(_filled(archive, wanted))


def _filled(archive: Archive, wanted: list[Dependency]) -> Iterator[Dependency]:
    # Each file once: 256 dependencies on one package would hold its content 256 times.
    read: dict[str, bytes] = {}
    for one in wanted:
        if one.type == "package":
            path = ASSET_FOLDER + one.value["path"]
            if path not in read:
                read[path] = archive.read(path)
            yield Dependency(one.type, one.value, read[path])
        else:
            yield one


def _decode(content: bytes) -> list[Dependency]:
    try:
        values = _MANIFEST(compose(content, MANIFEST))
    except Misfit as misfit:
        raise PackageRejected(f"{MANIFEST}: {misfit}") from None
    for name in ("name", "author", "version"):
        if not values[name]:
            raise PackageRejected(f"{MANIFEST}: {name} is missing")
    if values["type"] != "bundle":
        raise PackageRejected(f"{MANIFEST}: type must be bundle, not {values['type'][:100]!r}")
    found: list[Dependency] = values["dependencies"] or []
    if len(found) > MOST_DEPENDENCIES:
        raise PackageRejected(
            f"{MANIFEST}: {len(found)} dependencies, at most {MOST_DEPENDENCIES} are taken"
        )
    return found


def _dependency(node: Node | None) -> Json:
    items = members(node)
    kind = inside(".type", text, items.get("type"))
    value = members(items.get("value"))
    reader = _READERS.get(kind)
    if reader is None or node is None:
        raise _misfit(f"has the type {kind[:100]!r}: take github, marketplace or package", node)
    name, read = reader
    stated = inside(f".value.{name}", text, value.get(name))
    found = read(stated)
    if found is None:
        raise _misfit(f"has a value.{name} that cannot be understood: {stated[:300]!r}", node)
    return Dependency(kind, found)


def _misfit(takes: str, node: Node | None) -> Misfit:
    assert node is not None  # noqa: S101 - lists have no missing items
    return Misfit(takes, node)


def _github(stated: str) -> dict[str, str] | None:
    match = _GITHUB.fullmatch(stated)
    if match is None:
        return None
    return {
        "repo_address": f"https://github.com/{match[1]}",
        "repo": match[1],
        "release": match[2],
        "packages": match[3],
    }


def _marketplace(stated: str) -> dict[str, str] | None:
    match = _MARKETPLACE.fullmatch(stated)
    if match is None:
        return None
    organization, _, plugin = match[1].partition("/")
    return {"organization": organization, "plugin": plugin, "version": match[2]}


def _path(stated: str) -> dict[str, str] | None:
    return {"path": stated} if re.fullmatch(r"[A-Za-z0-9._-]{1,128}", stated) else None


_READERS: Final = {
    "github": ("repo_pattern", _github),
    "marketplace": ("marketplace_pattern", _marketplace),
    "package": ("path", _path),
}
_MANIFEST: Final = record(
    {
        "name": text,
        "icon": text,
        "author": text,
        "labels": I18N,
        "description": I18N,
        "version": text,
        "type": text,
        "tags": list_of(text),
        "dependencies": list_of(_dependency),
    }
)
