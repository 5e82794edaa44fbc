"""Icons: from names in the package to ids in the store (spec/plugin/08 section 7)."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from typing import final

from tidegate.errors import PackageRejected
from tidegate.packages.archive import Files
from tidegate.packages.shapes import Json
from tidegate.packages.svg import sanitised

ASSET_FOLDER = "_assets/"
# A browser would run what is in these; they are served to the people who look at the plugin.
_NO_ICONS = {".htm", ".html", ".xhtml", ".xht", ".xml", ".js", ".mjs", ".svgz"}


def asset_id(name: str, content: bytes) -> str:
    """Id of an asset: hash of content and name, with the name's extension."""
    digest = hashlib.sha256(content + name.encode()).hexdigest()
    return digest + _extension(name)


def _extension(name: str) -> str:
    # Like the reference, and unlike splitext: `.svg` alone is an extension as well.
    base = posixpath.basename(name)
    return base[base.rindex(".") :] if "." in base else ""


@final
class AssetShelf:
    """Replaces icon names in a declaration by ids and keeps the contents that are referred to."""

    def __init__(self, archive: Files) -> None:
        self._archive = archive
        self._ids: dict[str, str] = {}
        self.contents: dict[str, bytes] = {}

    def place(self, declaration: Json) -> None:
        """Remap every icon of ``declaration`` in place; PackageRejected when one is missing."""
        for what, holder, key in _icons_of(declaration):
            if holder.get(key):
                holder[key] = self._id_of(holder[key], what)

    def _id_of(self, name: str, what: str) -> str:
        if name not in self._ids:
            path = ASSET_FOLDER + name
            if path not in self._archive:
                raise PackageRejected(f"failed to remap {what} icon: file not found: {name[:200]}")
            content = self._archive.read(path)
            # The id is that of the file as packed, so that it equals the one that Dify knows.
            self._ids[name] = asset_id(name, content)
            self.contents[self._ids[name]] = _harmless(name, content)
        return self._ids[name]


def _harmless(name: str, content: bytes) -> bytes:
    extension = _extension(name).lower()
    # By the name: that is what whoever shows an icon goes by.
    if extension in _NO_ICONS:
        raise PackageRejected(f"the icon {name[:200]} is no image")
    return sanitised(name, content) if extension == ".svg" else content


def _icons_of(declaration: Json) -> Iterator[tuple[str, dict[str, Json], str]]:
    """(what it is the icon of, the object that names it, under which key)."""
    yield "plugin", declaration, "icon"
    yield "plugin", declaration, "icon_dark"
    model = declaration.get("model") or {}
    for field in ("icon_small", "icon_large", "icon_small_dark", "icon_large_dark"):
        for language in model.get(field) or {}:
            yield "model", model[field], language
    for kind in ("tool", "agent_strategy", "trigger", "datasource"):
        if kind in declaration:
            identity = declaration[kind]["identity"]
            yield kind, identity, "icon"
            yield kind, identity, "icon_dark"
    for datasource in (declaration.get("datasource") or {}).get("datasources", []):
        yield "datasource", datasource["identity"], "icon"
