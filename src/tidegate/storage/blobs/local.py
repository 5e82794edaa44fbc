"""Blobs in a folder.

A blob is written beside its place, synced, and renamed over it; then the folder is synced. So a
crash leaves the old bytes or the new ones, and at most a stray ``.tidegate-*`` file, which the
next listing of its folder sweeps. File operations run in gevent's native threads: a sync of
50 MB must not stop the streams of the process.

The root carries a mark. Without it the folder is not ours - a volume that is not mounted - and
nothing in it counts as missing (D-59).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import gevent
from gevent import monkey

from tidegate.errors import BlobMissing, BlobUnavailable, StartRefused, TidegateError
from tidegate.storage.blobs.contract import Blob, checked_key

MARK = ".tidegate-store"
_PREFIX = ".tidegate-"
_STRAY_SECONDS = 3600.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


@final
class LocalBlobs:
    """A :class:`tidegate.storage.blobs.BlobStore` below one folder of one machine."""

    def __init__(self, root: Path) -> None:
        """Make the folder and its mark; StartRefused when that cannot be done."""
        self._root = root
        try:
            root.mkdir(mode=0o750, parents=True, exist_ok=True)
            # Only here, at a role's start: made at each write, the mark would hide that the volume
            # is not mounted.
            (root / MARK).touch(mode=0o640)
        except OSError as error:
            raise StartRefused(
                f"PLUGIN_STORAGE_LOCAL_ROOT {root} cannot be written: {error.strerror}"
            ) from error

    def save(self, key: str, data: bytes) -> None:
        """See :meth:`BlobStore.save`."""
        path = self._path(key)
        _in_thread(lambda: self._guarded(key, lambda: self._replace(path, data)))

    def load(self, key: str) -> bytes:
        """See :meth:`BlobStore.load`."""
        path = self._path(key)
        return _in_thread(lambda: self._guarded(key, path.read_bytes))

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        path = self._path(key)
        try:
            mode = _in_thread(lambda: self._guarded(key, path.stat)).st_mode
        except BlobMissing:
            return False
        # A folder of that name is no blob: `acme/x` is the folder of `acme/x/y`.
        return stat.S_ISREG(mode)

    def list(self, prefix: str) -> list[Blob]:
        """See :meth:`BlobStore.list`."""
        folder = self._path(prefix)
        try:
            found = _in_thread(lambda: self._guarded(prefix, lambda: [*self._walk(folder)]))
        except BlobMissing:
            return []
        return sorted(found, key=lambda blob: blob.key)

    def delete(self, key: str) -> bool:
        """See :meth:`BlobStore.delete`."""
        path = self._path(key)
        try:
            _in_thread(lambda: self._guarded(key, path.unlink))
        except BlobMissing:
            return False
        return True

    # ----------------------------------------------------------------------- in a native thread

    def _path(self, key: str) -> Path:
        if any(segment.startswith(_PREFIX) for segment in checked_key(key).split("/")):
            raise ValueError(f"not a blob key: {key[:300]!r}")
        return self._root / key

    def _guarded[T](self, key: str, action: Callable[[], T]) -> T:
        """Run ``action``; its errors say whether the blob is missing or the store unavailable."""
        try:
            return action()
        except OSError as error:
            # The mark is asked for after the failure: before it, a volume that goes away in
            # between would look like a blob that is missing.
            if error.errno in _ABSENT and (self._root / MARK).exists():
                raise BlobMissing(f"nothing is stored as {key}", key=key) from error
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> BlobUnavailable:
        if error.errno in _FULL:
            return BlobUnavailable(
                f"no space left below {self._root}: free some; nothing was changed", reason="full"
            )
        if error.errno in _ABSENT:
            return BlobUnavailable(
                f"{self._root} is not the blob store (no {MARK} in it): is its volume mounted?",
                reason="unmounted",
            )
        return BlobUnavailable(f"blob store {self._root}: {error.strerror}", reason="error")

    def _replace(self, path: Path, data: bytes) -> None:
        if not (self._root / MARK).exists():
            raise FileNotFoundError(errno.ENOENT, "no store", str(self._root))
        self._make_folders(path.parent)
        stray = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}")
        try:
            with stray.open("xb", buffering=0) as file:
                # By the descriptor, since the umask has cut the mode that open() was given.
                os.fchmod(file.fileno(), 0o640)
                _write_all(file.fileno(), data)
                os.fsync(file.fileno())
            stray.replace(path)
        except BaseException:
            # Also for a full disk, where the half file is what fills it.
            stray.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def _make_folders(self, folder: Path) -> None:
        """Make what is missing above a blob; each parent is synced, or a crash loses it."""
        if folder.is_dir():
            return
        self._make_folders(folder.parent)
        folder.mkdir(mode=0o750, exist_ok=True)
        _sync_folder(folder.parent)

    def _walk(self, folder: Path) -> Iterator[Blob]:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # gone since: that one is missing, not the list
                    yield from self._visit(entry)

    def _visit(self, entry: os.DirEntry[str]) -> Iterator[Blob]:
        if entry.name.startswith(_PREFIX):
            _sweep(entry)
        elif entry.is_dir(follow_symlinks=False):
            yield from self._walk(Path(entry.path))
        elif entry.is_file():
            yield self._blob(entry)

    def _blob(self, entry: os.DirEntry[str]) -> Blob:
        state = entry.stat()
        key = str(Path(entry.path).relative_to(self._root))
        return Blob(key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))


def _in_thread[T](action: Callable[[], T]) -> T:
    if not monkey.is_module_patched("threading"):
        return action()  # a command without a hub: nobody else waits
    error, result = gevent.get_hub().threadpool.apply(_outcome, (action,))
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _outcome(action: Callable[[], Any]) -> tuple[TidegateError | None, Any]:
    """The error as a value: gevent's pool prints the traceback of what is raised in a thread."""
    try:
        return None, action()
    except TidegateError as error:
        return error, None


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        _close(descriptor)


# gevent's close looks for a hub, and this runs in a thread that has none
_close: Callable[[int], None] = monkey.get_original("os", "close")


def _sweep(entry: os.DirEntry[str]) -> None:
    """Remove what a crash left behind; a young one may still be written to."""
    if entry.name != MARK and time.time() - entry.stat().st_mtime > _STRAY_SECONDS:
        os.unlink(entry.path)
