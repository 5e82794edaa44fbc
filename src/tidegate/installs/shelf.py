"""Where packages lie in the blob store, and which of them are installed (spec/http/03 section 1).

| prefix | a package there was |
|---|---|
| PLUGIN_PACKAGE_CACHE_PATH | uploaded |
| PLUGIN_INSTALLED_PATH | installed by somebody: the marker that the reference goes by |
| PLUGIN_MEDIA_CACHE_PATH | (icons, by content) |
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import final

from tidegate.errors import BlobMissing
from tidegate.settings import Settings
from tidegate.storage.blobs import BlobStore


@final
class Shelf:
    """Packages and icons by their names. Never used inside a database transaction."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._uploaded = settings.plugin_package_cache_path
        self._installed = settings.plugin_installed_path
        self._media = settings.plugin_media_cache_path

    def package(self, identifier: str) -> bytes:
        """An uploaded package; BlobMissing when it never was, BlobUnavailable when unsure."""
        return self._blobs.load(f"{self._uploaded}/{identifier}")

    def has_package(self, identifier: str) -> bool:
        """Whether it was uploaded once."""
        return self._blobs.exists(f"{self._uploaded}/{identifier}")

    def put_package(self, identifier: str, data: bytes) -> None:
        """Keep an uploaded package."""
        self._blobs.save(f"{self._uploaded}/{identifier}", data)

    def drop_package(self, identifier: str) -> None:
        """Forget a package whose upload failed after all."""
        self._delete(f"{self._uploaded}/{identifier}")

    def put_icons(self, icons: Mapping[str, bytes]) -> list[str]:
        """Keep icons by their asset ids; returns the ids that were not there before."""
        fresh = [name for name in icons if not self._blobs.exists(f"{self._media}/{name}")]
        for name in fresh:
            self._blobs.save(f"{self._media}/{name}", icons[name])
        return fresh

    def drop_icons(self, names: list[str]) -> None:
        """Forget the icons that a failed upload brought (never ones that others share, D-63)."""
        for name in names:
            self._delete(f"{self._media}/{name}")

    def mark_installed(self, identifier: str) -> None:
        """Copy a package to the installed ones, unless it is there. May be repeated."""
        marker = f"{self._installed}/{identifier}"
        if not self._blobs.exists(marker):
            self._blobs.save(marker, self.package(identifier))

    def unmark_installed(self, identifier: str) -> None:
        """Take the marker away; the uploaded package stays. May be repeated."""
        self._delete(f"{self._installed}/{identifier}")

    def is_marked_installed(self, identifier: str) -> bool:
        """Whether the marker is there."""
        return self._blobs.exists(f"{self._installed}/{identifier}")

    def _delete(self, key: str) -> None:
        with contextlib.suppress(BlobMissing):
            self._blobs.delete(key)
