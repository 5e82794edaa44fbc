"""Folders of plugins: whole, or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from tidegate.errors import EnvironmentFailed
from tidegate.hosts.provision import Provision
from tidegate.ids import PluginIdentifier
from tidegate.packages import build_package, open_package
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
