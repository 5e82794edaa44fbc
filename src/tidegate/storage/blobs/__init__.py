"""Blobs: packages, markers of installed ones, icons. One store, chosen by PLUGIN_STORAGE_TYPE.

    store = open_blobs(settings)
    store.save(layout.package(identifier), data)

A store tells a missing blob from a store that cannot be asked (D-59): the first is
:class:`tidegate.errors.BlobMissing` or False, the second always
:class:`tidegate.errors.BlobUnavailable`.
"""

from __future__ import annotations

from tidegate.errors import StartRefused
from tidegate.settings import Settings
from tidegate.storage.blobs.contract import Blob, BlobStore
from tidegate.storage.blobs.layout import Layout
from tidegate.storage.blobs.local import LocalBlobs

__all__ = ["Blob", "BlobStore", "Layout", "open_blobs"]

_LOCAL = {"local", "local_file"}
_S3 = {"s3", "aws_s3", "aws-s3"}


def open_blobs(settings: Settings) -> BlobStore:
    """The store of this process; called once by each role. StartRefused when it is not usable."""
    if settings.plugin_storage_type in _LOCAL:
        return LocalBlobs(settings.blob_root)
    if settings.plugin_storage_type in _S3:
        from tidegate.storage.blobs.s3 import S3Blobs

        return S3Blobs(settings)
    raise StartRefused(
        f"PLUGIN_STORAGE_TYPE={settings.plugin_storage_type} is not built: take local or s3"
    )
