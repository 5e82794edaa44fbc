"""What a debugged plugin declares: the same declaration as a package's, from JSON.

Its providers are whole already: tools, models and the like stand in them, no file is named. The
manifest holds all rules that packing checks as well, so that the developer hears of a mistake
while he can mend it (spec/plugin/02 sections 3 and 4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import msgspec

from tidegate.errors import PackageRejected, RegistrationRefused
from tidegate.ids import PluginIdentifier
from tidegate.packages.assets import ASSET_FOLDER, AssetShelf
from tidegate.packages.declarations import KINDS, Documents
from tidegate.packages.declarations.kinds import Kind
from tidegate.packages.json_nodes import json_node
from tidegate.packages.manifest import Manifest, identifier_of, read_manifest
from tidegate.packages.manifest_rules import manifest_faults
from tidegate.packages.package import fill_defaults
from tidegate.packages.shapes import Json, Misfit

#: Kinds whose words in errors are not their key.
_WORDS = {
    "tool": "tools",
    "model": "models",
    "endpoint": "endpoints",
    "agent_strategy": "agent strategy",
    "trigger": "triggers",
}


@final
@dataclass(frozen=True, slots=True)
class Registered:
    """A plugin that may be called: who it is, what it declares, its icons by asset id."""

    identifier: PluginIdentifier
    declaration: dict[str, Json]
    icons: dict[str, bytes]

    @property
    def text(self) -> str:
        """The declaration as it is stored."""
        return msgspec.json.encode(self.declaration).decode()


def register(
    manifest: bytes, providers: Mapping[str, bytes], assets: Mapping[str, bytes], tenant: str
) -> Registered:
    """The plugin that these describe. ``providers`` are JSON by kind, ``assets`` by file name.

    Pure computation of up to seconds. RegistrationRefused with the line for the developer.
    """
    read = _manifest(manifest, tuple(kind.key for kind in KINDS if kind.key in providers))
    kinds = {
        kind.key: _provider(kind, providers[kind.key]) for kind in KINDS if kind.key in providers
    }
    declaration = dict(read.values) | {"verified": False} | kinds
    icons = _place_icons(declaration, assets)
    # After the icons, which are remapped in place: what is filled in copies from the manifest.
    fill_defaults(declaration, kinds)
    return Registered(_identifier(read, declaration, tenant), declaration, icons)


def _manifest(content: bytes, kinds: tuple[str, ...]) -> Manifest:
    try:
        read = read_manifest(json_node(content, "the manifest"), kinds)
    except PackageRejected as error:
        raise _bad_manifest(error.message) from None
    # The full rules, which a package need not hold: nothing is published yet, so a mistake can
    # still be mended.
    faults = manifest_faults(read.values)
    if faults:
        raise _bad_manifest("; ".join(faults))
    return read


def _bad_manifest(why: str) -> RegistrationRefused:
    return RegistrationRefused(f"handshake failed, invalid plugin declaration: {why}")


def _provider(kind: Kind, content: bytes) -> Json:
    words = _WORDS.get(kind.key, kind.key)
    try:
        provider = kind.decode(Documents(_NoFiles()), json_node(content, f"the {words}"))
        _require_name(kind, provider)
    except (Misfit, PackageRejected) as error:
        raise RegistrationRefused(
            f"{words} register failed, invalid {words} declaration: {error}"
        ) from None
    return provider


def _require_name(kind: Kind, provider: Json) -> None:
    if kind.key == "endpoint":
        return
    name = provider["provider"] if kind.key == "model" else provider["identity"]["name"]
    if not name:
        raise PackageRejected("the provider has no name")


def _place_icons(declaration: dict[str, Json], assets: Mapping[str, bytes]) -> dict[str, bytes]:
    shelf = AssetShelf(_Assets(assets))
    try:
        shelf.place(declaration)
    except PackageRejected as error:
        raise RegistrationRefused(
            f"assets remap failed, invalid assets data, cannot remap: {error}"
        ) from None
    return shelf.contents


def _identifier(read: Manifest, declaration: dict[str, Json], tenant: str) -> PluginIdentifier:
    # With the tenant: two of them may debug the same plugin, and each gets its own sessions only.
    text = msgspec.json.encode(declaration) + tenant.encode()
    checksum = hashlib.sha256(text).hexdigest()
    try:
        return identifier_of(read, checksum)
    except PackageRejected as error:
        raise _bad_manifest(error.message) from None


@final
class _NoFiles:
    """Nothing is named by file. Follows ``archive.Files``."""

    names: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return False

    def size(self, name: str) -> int:
        raise KeyError(name)

    def read(self, name: str) -> bytes:
        raise KeyError(name)


@final
class _Assets:
    """Assets that came by themselves, as files below ``_assets/``. Follows ``archive.Files``."""

    def __init__(self, assets: Mapping[str, bytes]) -> None:
        self._assets = {ASSET_FOLDER + name: content for name, content in assets.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._assets)

    def __contains__(self, name: str) -> bool:
        return name in self._assets

    def size(self, name: str) -> int:
        return len(self._assets[name])

    def read(self, name: str) -> bytes:
        return self._assets[name]
