"""Folders of plugins: whole, or not there."""

from __future__ import annotations

import errno
import gc
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import gevent
import pytest
from gevent import monkey

from tests.faults.failing_calls import Failing, failing
from tidegate.errors import BlobMissing, EnvironmentFailed
from tidegate.hosts import provision as provision_module
from tidegate.hosts.provision import PackageMissing, Provision
from tidegate.ids import PluginIdentifier
from tidegate.packages import Package, build_package, open_package
from tidegate.settings import Settings

PACKAGE = build_package(Path(__file__).parents[3] / "examples" / "hello")


class Blobs:
    """A store that has the package."""

    def load(self, key: str) -> bytes:
        return PACKAGE


class NoEnvironments:
    """Builds nothing: these tests end before it."""

    def ensure(self, folder: Path, **given: Any) -> NoReturn:
        raise EnvironmentFailed("not here")


def test_D_65_a_folder_that_was_left_half_extracted_is_made_anew(tmp_path: Path) -> None:
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    opened = open_package(PACKAGE, limit=1 << 26)
    folder = settings.working_path / PluginIdentifier.parse(str(opened.identifier)).folder
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("half")
    provision = Provision(settings, Blobs(), NoEnvironments())  # type: ignore[arg-type]
    with pytest.raises(EnvironmentFailed):
        provision.prepare(str(opened.identifier), lambda step, text: None)
    assert {name for name in opened.names if not (folder / name).is_file()} == set()
    assert (folder / "main.py").read_bytes() == opened.read("main.py")
    assert [path.name for path in folder.parent.iterdir() if "tmp" in path.name] == []


class Empty:
    """A store that has nothing."""

    def load(self, key: str) -> bytes:
        raise BlobMissing(key)


def test_a_plugin_that_does_not_exist_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    provision = Provision(settings, Empty(), NoEnvironments())  # type: ignore[arg-type]
    for number in range(3):
        with pytest.raises(PackageMissing):
            provision.prepare(f"a/b:0.0.{number}@{'0' * 64}", lambda step, text: None)
    gc.collect()  # errors and their frames hold each other
    assert not provision._busy


class Known:
    """Nothing needs building, so that what was unpacked is taken as it is."""

    former_released = False

    def ensure(self, folder: Path, **given: Any) -> NoReturn:
        raise EnvironmentFailed("not here")

    def has(self, user: str) -> bool:
        return True

    def users(self) -> list[str]:
        return []

    def sweep(self) -> None:
        """Nothing was built."""

    def release_former(self) -> None:
        self.former_released = True


@pytest.mark.parametrize("shared", [False, True])
def test_former_environments_stay_where_another_host_may_use_them(
    tmp_path: Path, shared: bool
) -> None:
    place = str(tmp_path / "shared") if shared else ""
    settings = Settings.load(
        {"TIDEGATE_HOME": str(tmp_path / "home"), "PLUGIN_WORKING_PATH": place}
    )
    environments = Known()
    Provision(settings, Blobs(), environments).sweep()  # type: ignore[arg-type]
    assert environments.former_released is not shared


@pytest.mark.parametrize("before", ["nothing", "half a folder"])
def test_T_I1_a_host_killed_at_any_call_of_unpacking_has_the_whole_plugin_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """From the N-th call on none does anything, and nobody cleans up: as if it were not there."""
    opened = open_package(PACKAGE, limit=1 << 26)
    identifier = str(opened.identifier)
    clear = provision_module._clear

    def unpacked(provision: Provision) -> None:
        with pytest.raises(EnvironmentFailed):
            provision.prepare(identifier, lambda step, text: None)

    for nth in itertools.count(1):
        home = tmp_path / str(nth)
        settings = Settings.load({"TIDEGATE_HOME": str(home)})
        folder = settings.working_path / opened.identifier.folder
        if before != "nothing":
            folder.mkdir(parents=True)
            (folder / "main.py").write_text("half")
        with failing(opened.identifier.checksum, nth, errno.EIO, lasting=True) as killed:
            monkeypatch.setattr(provision_module, "_clear", _while_alive(clear, killed))
            unpacked(Provision(settings, Blobs(), Known()))  # type: ignore[arg-type]
            monkeypatch.setattr(provision_module, "_clear", clear)
        host = Provision(settings, Blobs(), Known())  # type: ignore[arg-type]
        host.sweep()
        if host.is_built(identifier):
            assert _whole(folder, opened), killed.failed
        unpacked(host)
        assert host.is_built(identifier)
        assert _whole(folder, opened)
        assert not list(folder.parent.glob(".tmp-*"))
        if not killed.failed:
            break
    assert nth > 10


def _while_alive(clear: Callable[[Path], None], killed: Failing) -> Callable[[Path], None]:
    return lambda path: None if killed.failed else clear(path)


def _whole(folder: Path, opened: Package) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).read_bytes() == opened.read(name)
        for name in opened.names
    )


def test_a_plugin_that_is_stopped_while_it_is_unpacked_leaves_nothing_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread wrote on, where the next try and the removal of the plugin were at work, too."""
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    identifier = str(open_package(PACKAGE, limit=1 << 26).identifier)
    pause = monkey.get_original("time", "sleep")
    extract, begun, ended = provision_module._extract, threading.Event(), []

    def slowly(*given: Any) -> Any:
        begun.set()
        pause(0.3)
        ended.append(extract(*given))
        return ended[-1]

    monkeypatch.setattr(provision_module, "_extract", slowly)
    provision = Provision(settings, Blobs(), NoEnvironments())  # type: ignore[arg-type]
    starting = gevent.spawn(provision.prepare, identifier, lambda step, text: None)
    with gevent.Timeout(10):
        while not begun.is_set():
            gevent.sleep(0.01)
        starting.kill()
    assert ended, "the thread was waited for"
    assert [path.name for path in settings.working_path.rglob("*") if path.is_file()] == []
