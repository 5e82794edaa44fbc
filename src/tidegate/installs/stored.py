"""Uploaded packages, read again: what is in one that no row tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from tidegate.errors import BlobMissing, PackageUnknown
from tidegate.installs.native import in_thread
from tidegate.installs.shelf import Shelf
from tidegate.installs.uploads import Uploaded, check_kept_as
from tidegate.packages import Package, TrustedKeys, open_package, verify
from tidegate.settings import Settings
from tidegate.storage.blobs import BlobStore


@final
class StoredPackages:
    """Reads packages from the blob store. One per api process.

    Each method raises PackageUnknown for a version that was never uploaded, BlobUnavailable when
    that cannot be said, PackageRejected when what is kept is broken.
    """

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._settings = settings
        self._shelf = Shelf(settings, blobs)

    def decode(self, identifier: str) -> Uploaded:
        """What the upload answered, but icons have the names that they have in the package."""
        keys = TrustedKeys.load(self._settings)

        def decoded(package: Package) -> Uploaded:
            verification = verify(package, keys)
            declaration = package.declaration(verification is not None)
            return Uploaded(package.identifier, declaration, verification)

        return self._with_package(identifier, decoded)

    def readmes(self, identifier: str) -> dict[str, str]:
        """Language -> readme; empty when the package has none."""

        def read(package: Package) -> dict[str, str]:
            return {one: package.readme(one) or "" for one in package.readme_languages}

        return self._with_package(identifier, read)

    def asset(self, identifier: str, path: str) -> bytes | None:
        """Content of ``_assets/<path>``; None when the package has none such."""
        return self._with_package(identifier, lambda package: package.asset(path))

    def _with_package[T](self, identifier: str, work: Callable[[Package], T]) -> T:
        try:
            data = self._shelf.package(identifier)
        except BlobMissing:
            raise PackageUnknown(
                f"plugin package not found, please upload it firstly: {identifier}",
                plugin=identifier,
            ) from None
        return in_thread(lambda: work(self._opened(identifier, data)))

    def _opened(self, identifier: str, data: bytes) -> Package:
        package = open_package(data, limit=self._settings.max_plugin_package_size)
        check_kept_as(identifier, package.identifier)
        return package
