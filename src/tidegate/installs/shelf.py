"""Packages in the blob store, and which of them are marked as installed (spec/http/03 section 1).

An uploaded package stays. Its copy among the installed ones is the marker that the reference goes
by: there as long as somebody uses the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import final

from tidegate.errors import BlobMissing
from tidegate.settings import Settings
from tidegate.storage.blobs import Blob, BlobStore, Layout


@final
class Shelf:
    """Packages and icons by their names. Never used inside a database transaction."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._layout = Layout(settings)

    def package(self, identifier: str) -> bytes:
        """An uploaded package; BlobMissing when it never was, BlobUnavailable when unsure.

        An installed one is taken from there when the uploaded one was cleared away.
        """
        try:
            # The upload first: the reference clears its cache of packages, and then only the
            # marker has the bytes.
            return self._blobs.load(self._layout.package(identifier))
        except BlobMissing:
            return self._blobs.load(self._layout.installed(identifier))

    def has_package(self, identifier: str) -> bool:
        """Whether it was uploaded once."""
        return self._blobs.exists(self._layout.package(identifier))

    def put_package(self, identifier: str, data: bytes) -> None:
        """Keep an uploaded package."""
        self._blobs.save(self._layout.package(identifier), data)

    def drop_package(self, identifier: str) -> None:
        """Forget a package whose upload failed after all."""
        self._blobs.delete(self._layout.package(identifier))

    def missing_icons(self, icons: Mapping[str, bytes]) -> list[str]:
        """The asset ids that are not kept yet."""
        return [name for name in icons if not self._blobs.exists(self._layout.asset(name))]

    def put_icons(self, icons: Mapping[str, bytes]) -> None:
        """Keep icons by their asset ids, which are hashes of their contents."""
        for name in self.missing_icons(icons):
            self._blobs.save(self._layout.asset(name), icons[name])

    def drop_icons(self, names: list[str]) -> None:
        """Forget the icons that a failed upload brought (never ones that others share, D-63)."""
        for name in names:
            self._blobs.delete(self._layout.asset(name))

    def mark_installed(self, identifier: str) -> None:
        """Copy a package to the installed ones, unless it is there. May be repeated."""
        marker = self._layout.installed(identifier)
        # Up to 50 MB that need not be written again at each round of the reconciler.
        if not self._blobs.exists(marker):
            self._blobs.save(marker, self.package(identifier))

    def unmark_installed(self, identifier: str) -> None:
        """Take the marker away; the uploaded package stays. May be repeated."""
        self._blobs.delete(self._layout.installed(identifier))

    def packages(self) -> list[tuple[str, datetime]]:
        """Uploaded packages: identifier, and when it was uploaded last."""
        below = self._layout.package("")
        return [
            (one.key[len(below) :], one.modified) for one in self._listed(self._layout.packages)
        ]

    def uploaded_at(self, identifier: str) -> datetime | None:
        """When one package was uploaded last; None when it is not there."""
        key = self._layout.package(identifier)
        folder = self._listed(key.rpartition("/")[0])
        return next((one.modified for one in folder if one.key == key), None)

    def marked_installed(self) -> list[str]:
        """Identifiers of the packages that are marked as installed."""
        below = self._layout.installed("")
        return [one.key[len(below) :] for one in self._listed(self._layout.installed_ones)]

    def icons(self) -> list[tuple[str, datetime]]:
        """Asset ids, and when each was written."""
        below = self._layout.asset("")
        return [(one.key[len(below) :], one.modified) for one in self._listed(self._layout.assets)]

    def _listed(self, prefix: str) -> list[Blob]:
        return self._blobs.list(prefix)

    def is_marked_installed(self, identifier: str) -> bool:
        """Whether the marker is there."""
        return self._blobs.exists(self._layout.installed(identifier))
