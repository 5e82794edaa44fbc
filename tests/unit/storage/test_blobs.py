"""Blobs: whole or not at all, and a store that cannot be asked never says "missing"."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from tidegate.errors import BlobMissing, BlobUnavailable, SettingInvalid, StartRefused
from tidegate.settings import Settings
from tidegate.storage.blobs import BlobStore, Layout, open_blobs
from tidegate.storage.blobs.local import MARK

KEY = f"plugin_packages/acme/weather:0.0.1@{'a' * 64}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({"TIDEGATE_HOME": str(tmp_path / "home")})


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return open_blobs(settings)


def test_what_was_saved_is_loaded(blobs: BlobStore) -> None:
    assert not blobs.exists(KEY)
    blobs.save(KEY, b"\0package")
    assert blobs.exists(KEY)
    assert blobs.load(KEY) == b"\0package"
    blobs.save(KEY, b"")
    assert blobs.load(KEY) == b""


def test_the_layout_is_the_references(settings: Settings, blobs: BlobStore) -> None:
    layout = Layout(settings)
    identifier = f"acme/weather:0.0.1@{'a' * 64}"
    assert layout.package(identifier) == KEY
    assert layout.installed(identifier) == f"plugin/{identifier}"
    assert layout.asset("f00.svg") == "assets/f00.svg"
    blobs.save(layout.package(identifier), b"x")
    assert (settings.blob_root / "plugin_packages/acme").is_dir()


def test_a_store_elsewhere_is_taken_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "storage"
    (root / "plugin/acme").mkdir(parents=True)
    (root / "plugin/acme/clock:1.0.0@abc").write_bytes(b"of a reference daemon")
    store = open_blobs(
        Settings.load({"TIDEGATE_HOME": str(tmp_path), "PLUGIN_STORAGE_LOCAL_ROOT": str(root)})
    )
    assert [blob.key for blob in store.list("plugin")] == ["plugin/acme/clock:1.0.0@abc"]


def test_missing_is_its_own_error(blobs: BlobStore) -> None:
    blobs.save(KEY, b"x")
    for key in ("plugin_packages/none", "none/none", f"{KEY}/below", "plugin_packages/acme"):
        with pytest.raises(BlobMissing):
            blobs.load(key)
        assert not blobs.exists(key)
        assert not blobs.delete(key)
    assert blobs.load(KEY) == b"x", "a folder is never deleted (D-43)"


def test_delete_removes_one(blobs: BlobStore) -> None:
    blobs.save("a/one", b"1")
    blobs.save("a/two", b"2")
    assert blobs.delete("a/one")
    assert not blobs.delete("a/one")
    assert [blob.key for blob in blobs.list("a")] == ["a/two"]


def test_a_listing_is_recursive_sorted_and_by_whole_segments(blobs: BlobStore) -> None:
    for key in ("plugin/b", "plugin/acme/z", "plugin/acme/a", "plugin_packages/x"):
        blobs.save(key, b"12")
    found = blobs.list("plugin")
    assert [blob.key for blob in found] == ["plugin/acme/a", "plugin/acme/z", "plugin/b"]
    assert {blob.size for blob in found} == {2}
    assert abs(found[0].modified.timestamp() - time.time()) < 60
    assert blobs.list("none") == []


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/.", "a\\b", "a\0b", "a\nb",
     "é" * 200, ".tidegate-store", "a/.tidegate-1"],
)  # fmt: skip
def test_T_S1_a_key_never_leaves_the_store(blobs: BlobStore, key: str) -> None:
    for act in (blobs.load, blobs.exists, blobs.delete, blobs.list, lambda k: blobs.save(k, b"")):
        with pytest.raises(ValueError, match="not a blob key"):
            act(key)


def test_D_59_an_unmounted_store_is_unavailable_not_empty(
    settings: Settings, blobs: BlobStore
) -> None:
    blobs.save(KEY, b"x")
    shutil.rmtree(settings.blob_root)
    for root_is_there in (False, True):
        if root_is_there:
            settings.blob_root.mkdir()  # the bare mount point
        for act in (blobs.load, blobs.exists, blobs.delete, blobs.list):
            with pytest.raises(BlobUnavailable, match="mounted"):
                act(KEY)
        with pytest.raises(BlobUnavailable, match="mounted"):
            blobs.save(KEY, b"y")


def test_D_59_an_io_error_is_unavailable_not_missing(settings: Settings, blobs: BlobStore) -> None:
    (settings.blob_root / "loop").symlink_to("loop")  # ELOOP, for root too
    for act in (blobs.load, blobs.exists, blobs.delete, blobs.list):
        with pytest.raises(BlobUnavailable):
            act("loop/x")


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """Files larger than ``size`` cannot be written: the kernel refuses as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_T_R2_a_full_disk_is_one_clear_error_and_the_old_bytes_stay(
    settings: Settings, blobs: BlobStore
) -> None:
    blobs.save(KEY, b"old")
    with _room_for(4096), pytest.raises(BlobUnavailable, match="no space left") as raised:
        blobs.save(KEY, b"n" * 100_000)
    assert raised.value.details == {"reason": "full"}
    assert blobs.load(KEY) == b"old"
    left = [path.name for path in (settings.blob_root / "plugin_packages/acme").iterdir()]
    assert left == [KEY.rsplit("/", 1)[1]], "nothing half-written stays"


def test_T_R2_a_crash_leaves_at_most_a_stray_that_is_swept(
    settings: Settings, blobs: BlobStore
) -> None:
    blobs.save(KEY, b"old")
    folder = settings.blob_root / "plugin_packages/acme"
    fresh, stale = folder / ".tidegate-fresh", folder / ".tidegate-stale"
    for stray in (fresh, stale):
        stray.write_bytes(b"half")
    os.utime(stale, (0, 0))
    assert [blob.key for blob in blobs.list("plugin_packages")] == [KEY]
    assert fresh.exists()
    assert not stale.exists()


def test_readers_see_old_or_new_never_between(blobs: BlobStore) -> None:
    versions = [bytes([number]) * 200_000 for number in range(4)]
    blobs.save(KEY, versions[0])
    seen = []

    def read() -> None:
        for _ in range(30):
            seen.append(blobs.load(KEY))

    readers = [gevent.spawn(read) for _ in range(4)]
    writers = [gevent.spawn(blobs.save, KEY, version) for version in versions * 5]
    gevent.joinall(readers + writers, raise_error=True)
    assert set(seen) <= set(versions)


def test_saving_does_not_stop_other_greenlets(blobs: BlobStore) -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0)
            turns += 1

    other = gevent.spawn(turn)
    blobs.save(KEY, b"x" * (8 << 20))
    other.kill()
    assert turns > 1


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    root = str(tmp_path / "file" / "store")
    with pytest.raises(StartRefused, match="PLUGIN_STORAGE_LOCAL_ROOT") as raised:
        open_blobs(Settings.load({"PLUGIN_STORAGE_LOCAL_ROOT": root}))
    assert "\n" not in raised.value.message


def test_a_store_that_is_not_built_is_refused_with_what_works() -> None:
    with pytest.raises(SettingInvalid, match="take local or s3"):
        open_blobs(Settings.load({"PLUGIN_STORAGE_TYPE": "azure_blob"}))


def test_the_mark_is_made_once(settings: Settings, blobs: BlobStore) -> None:
    assert (settings.blob_root / MARK).exists()
    open_blobs(settings).save(KEY, b"x")
    assert blobs.load(KEY) == b"x"
