"""Bundles are taken whole, or not at all."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import zipfile
from typing import Any

import pytest

from tests.unit.installs.conftest import TENANT, House, identifier, package
from tidegate.errors import BlobUnavailable, PackageRejected
from tidegate.installs.bundled import take_bundle
from tidegate.installs.shelf import Shelf
from tidegate.installs.uploads import Uploads
from tidegate.storage import declarations
from tidegate.storage.blobs import Layout

pytestmark = pytest.mark.blocks_hub("packages are built and migrations run in the test's process")
HEAD = "name: b\nauthor: acme\nversion: 0.0.1\ntype: bundle\ndependencies:\n"
MARKET = "- {type: marketplace, value: {marketplace_pattern: 'acme/weather:1.0.0'}}\n"


def bundle(*versions: str, more: str = "", broken: str = "") -> bytes:
    packages = {version: package(version) for version in versions}
    lines = [f"- {{type: package, value: {{path: '{version}'}}}}\n" for version in versions]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.yaml", HEAD + "".join(lines) + more)
        for version, data in packages.items():
            archive.writestr(f"_assets/{version}", b"broken" if version == broken else data)
    return buffer.getvalue()


class Refusing:
    """The house's store, but for keys that hold ``word``."""

    def __init__(self, house: House, word: str) -> None:
        self._blobs = house.blobs
        self._word = word

    def save(self, key: str, data: bytes) -> None:
        if self._word in key:
            raise BlobUnavailable("the disk is full")
        self._blobs.save(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)


def kept(house: House, version: str) -> tuple[bool, bool]:
    """(package in the store, declaration row)."""
    with house.database.read() as conn:
        declared = declarations.get(conn, identifier(version)) is not None
    return house.blobs.exists(Layout(house.settings).package(identifier(version))), declared


def test_every_package_of_a_bundle_is_taken_in_its_order(house: House) -> None:
    taken = house.installer.upload_bundle(TENANT, bundle("0.0.2", "0.0.1", more=MARKET), False)
    assert [one.type for one in taken] == ["package", "package", "marketplace"]
    found = [str(one.uploaded.identifier) for one in taken if one.uploaded]
    assert found == [identifier("0.0.2"), identifier("0.0.1")]
    assert kept(house, "0.0.1") == kept(house, "0.0.2") == (True, True)


def test_a_broken_package_keeps_the_others_out(house: House) -> None:
    with pytest.raises(PackageRejected):
        house.installer.upload_bundle(TENANT, bundle("0.0.1", "0.0.2", broken="0.0.2"), False)
    assert kept(house, "0.0.1") == (False, False)


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_while_keeping_takes_back_what_was_not_there_before(
    house: House, before: bool
) -> None:
    if before:
        house.installer.upload(TENANT, package("0.0.1"), False)
    word = identifier("0.0.2").split("@")[1]
    shelf = Shelf(house.settings, Refusing(house, word))  # type: ignore[arg-type]
    uploads = Uploads(house.settings, house.database, shelf, lambda generation: None)
    with pytest.raises(BlobUnavailable):
        take_bundle(house.settings, uploads, bundle("0.0.1", "0.0.2"), must_be_signed=False)
    assert kept(house, "0.0.1") == (before, before)
    assert kept(house, "0.0.2") == (False, False)


def test_signatures_are_asked_for_each_package(house: House) -> None:
    with pytest.raises(PackageRejected, match="bad signature: the package is not signed"):
        house.installer.upload_bundle(TENANT, bundle("0.0.1"), True)


@pytest.mark.parametrize("kind", ["bundle", "package"])
def test_what_was_refused_is_let_go_at_once(house: House, kind: str) -> None:
    """A bundle may have 600 MiB: it must not wait in memory for the next collection."""
    data = b"no zip file" + os.urandom(8)
    held = sys.getrefcount(data)
    take = house.installer.upload_bundle if kind == "bundle" else house.installer.upload
    gc.disable()
    try:
        with contextlib.suppress(PackageRejected):
            take(TENANT, data, False)
        assert sys.getrefcount(data) == held
    finally:
        gc.enable()
