"""One opened package: identity, files, declaration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import final

import msgspec

from tidegate.errors import PackageRejected
from tidegate.ids import PluginIdentifier
from tidegate.packages.archive import Archive
from tidegate.packages.assets import ASSET_FOLDER, AssetShelf
from tidegate.packages.checksum import checksum_of, digests_of
from tidegate.packages.declarations import Documents, decode_kinds
from tidegate.packages.manifest import (
    MANIFEST,
    Manifest,
    Runner,
    decode_manifest,
    identifier_of,
)
from tidegate.packages.shapes import Json

_README = re.compile(r"readme/README_([a-z]{2}_[A-Za-z]{2,})\.md")


@final
class Package:
    """A package whose archive, manifest and identifier are valid. Made by :func:`open_package`.

    Immutable for its users; keeps the bytes it was opened from and unpacks a file when it is
    asked for. What costs time (declaration) is done on first use.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        if MANIFEST not in archive:
            raise PackageRejected(f"difypkg: not a valid difypkg file: there is no {MANIFEST}")
        self.manifest: Manifest = decode_manifest(archive.read(MANIFEST))
        #: SHA-256 of every file in archive order: what signature and checksum are made of.
        self.digests: Mapping[str, bytes] = digests_of(archive.contents())
        self.checksum: str = checksum_of(self.digests)
        self.identifier: PluginIdentifier = identifier_of(self.manifest, self.checksum)
        # Kept as JSON: each caller gets values of its own, five times faster than by deepcopy.
        self._declared: bytes | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All files in archive order."""
        return self._archive.names

    @property
    def comment(self) -> bytes:
        """The archive's comment: where a signature stands."""
        return self._archive.comment

    @property
    def runner(self) -> Runner:
        """Language, version and entry point that the manifest asks for."""
        return self.manifest.runner

    @property
    def category(self) -> str:
        """``tool``, ``model``, ``datasource``, ``agent-strategy``, ``trigger`` or ``extension``."""
        return self.manifest.category

    def __contains__(self, name: str) -> bool:
        return name in self._archive

    def read(self, name: str) -> bytes:
        """Content of one file; PackageRejected when the package has none of that name."""
        if name not in self._archive:
            raise PackageRejected(f"{name[:200]} is not in the package {self.identifier}")
        return self._archive.read(name)

    def size(self, name: str) -> int:
        """Unpacked size of one file in bytes. KeyError when there is none."""
        return self._archive.size(name)

    def asset(self, name: str) -> bytes | None:
        """Content of ``_assets/<name>`` as packed; None when there is none."""
        path = ASSET_FOLDER + name
        return self._archive.read(path) if path in self._archive else None

    def extract_to(self, folder: Path) -> None:
        """Write all files below ``folder``, which must be new or empty: modes 0644 and 0755.

        Raises FileExistsError rather than write over or through anything, OSError as the disk
        does; what was written until then stays, so call it on a temporary folder and rename.
        """
        for name, content in self._archive.contents():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            # Names were checked already. This holds also when somebody else works in that folder
            # meanwhile.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(target, flags, 0o644), "wb") as file:
                file.write(content)

    def declaration(self, verified: bool) -> dict[str, Json]:
        """The declaration as JSON values, icons as the names they have in the package.

        ``verified`` is what the signature check said. PackageRejected names file, field, line.
        """
        if self._declared is None:
            self._declared = msgspec.json.encode(self._decode())
        declared: dict[str, Json] = msgspec.json.decode(self._declared)
        return declared | {"verified": verified}

    def declaration_with_assets(self, verified: bool) -> tuple[dict[str, Json], dict[str, bytes]]:
        """The declaration as stored and served: icons as asset ids; and each asset by its id.

        SVG icons come without scripts. PackageRejected when an icon is not in the package.
        """
        declaration = self.declaration(verified)
        shelf = AssetShelf(self._archive)
        shelf.place(declaration)
        return declaration, shelf.contents

    def readme(self, language: str = "en_US") -> str | None:
        """The readme in that language; None when there is none. ``en_US`` is ``README.md``."""
        name = self._readmes().get(language)
        return None if name is None else self._archive.read(name).decode("utf-8", "replace")

    @property
    def readme_languages(self) -> tuple[str, ...]:
        """Languages that have a readme."""
        return tuple(self._readmes())

    def _readmes(self) -> dict[str, str]:
        found = {"en_US": "README.md"} if "README.md" in self._archive else {}
        for name in self.names:
            match = _README.fullmatch(name)
            # English is README.md; a second one by the other way would depend on the order of
            # files.
            if match and match[1] != "en_US":
                found[match[1]] = name
        return found

    def _decode(self) -> dict[str, Json]:
        documents = Documents(self._archive)
        values = dict(self.manifest.values)
        kinds = decode_kinds(documents, values["plugins"], self.manifest.inline)
        fill_defaults(values, kinds)
        return values | {"verified": False} | kinds


def fill_defaults(values: Mapping[str, Json], kinds: Mapping[str, Json]) -> None:
    """What a provider does not say itself, the manifest says (spec/plugin/08 section 9)."""
    for kind in ("tool", "trigger"):
        if kind in kinds:
            identity = kinds[kind]["identity"]
            if not identity["description"]["en_US"]:
                identity["description"] = dict(values["description"])
            identity["tags"] = identity["tags"] or list(values["tags"])
    if "model" in kinds and kinds["model"]["description"] is None:
        kinds["model"]["description"] = dict(values["description"])


def open_package(data: bytes, *, limit: int) -> Package:
    """Open the bytes of a ``.difypkg``; ``limit`` (bytes) bounds them, packed and unpacked.

    Checks archive, manifest and identifier; the rest of the declaration when it is asked for.
    Raises PackageRejected with what is broken, and where. Pure computation - some 10 ms per
    unpacked MB, most of it without the interpreter's lock - so a caller that serves others should
    run it in a native thread when packages are large.
    """
    return Package(Archive(data, limit=limit))
