"""A package that is swapped after it was checked is not what runs (T-S8)."""

from __future__ import annotations

import pytest

from tests.hosting import PLUGINS, package_of, running_host
from tests.unit.installs.conftest import House, identifier, package
from tidegate.errors import PackageRejected
from tidegate.ids import PluginIdentifier
from tidegate.installs import StoredPackages
from tidegate.settings import Settings
from tidegate.storage import migrate
from tidegate.storage.blobs import Layout, open_blobs

pytestmark = pytest.mark.blocks_hub("packages are built in the process of the test")


def test_T_S8_the_host_runs_what_the_checksum_names_or_nothing(tmp_path):
    with running_host(tmp_path) as running:
        data = package_of(PLUGINS / "misbehave", tmp_path, name="swapped")
        other = package_of(
            PLUGINS / "misbehave", tmp_path, name="swapped", files={"README.md": "of somebody else"}
        )
        name = running.shelf.add(data)
        [key] = [one for one in running.shelf.blobs if name in one]
        running.shelf.blobs[key] = other
        answer = running.control("install", identifier=name)
        assert answer.error is not None
        assert "the package stored as" in answer.error["message"]
        folder = running.settings.working_path / name.replace(":", "-")
        assert not folder.exists()


class SwappedBehindTheReader(dict):
    """Blobs that are others as soon as they were read once."""

    def __init__(self, blobs, other):
        super().__init__(blobs)
        self.other = other
        self.reads = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.reads += 1
        self[key] = self.other
        return found


def test_T_S8_a_swap_between_the_check_and_the_use_changes_nothing_of_what_runs(tmp_path):
    """What is unpacked are the very bytes that were checked, and nobody reads them again."""
    with running_host(tmp_path) as running:
        data, other = (
            package_of(PLUGINS / "misbehave", tmp_path, name="raced", files={"README.md": text})
            for text in ("of the author", "of somebody else")
        )
        name = running.shelf.add(data)
        blobs = running.shelf.blobs = SwappedBehindTheReader(running.shelf.blobs, other)
        answer = running.control("install", identifier=name)
        assert answer.error is None
        assert blobs.reads == 1
        folder = running.settings.working_path / PluginIdentifier.parse(name).folder
        assert (folder / "README.md").read_text() == "of the author"
        assert running.call(name, "echo", text="on").wait().texts == ["on"]
        # After a loss of the folder the store is asked again, and the swap is seen then.
        running.control("remove", identifier=name)
        answer = running.control("install", identifier=name)
        assert "the package stored as" in answer.error["message"]


def test_T_S8_the_declaration_is_made_of_what_was_checked(tmp_path):
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path), "FORCE_VERIFYING_SIGNATURE": "false"})
    migrate(settings)
    house = House(settings)
    try:
        name = house.upload("0.0.1")
        with house.database.write() as conn:
            conn.exec_driver_sql("delete from plugin_declarations")
        house.shelf.put_package(name, package("0.0.2"))
        with pytest.raises(PackageRejected, match=f"kept as {name} is {identifier('0.0.2')}"):
            house.install(name)
        assert house.row() is None
    finally:
        house.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda stored, name: stored.decode(name),
        lambda stored, name: stored.readmes(name),
        lambda stored, name: stored.asset(name, "icon.svg"),
    ],
    ids=["decode", "readme", "asset"],
)
def test_T_S8_what_is_shown_of_a_version_is_of_that_version(tmp_path, ask):
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    stored, blobs = StoredPackages(settings, open_blobs(settings)), open_blobs(settings)
    place = Layout(settings).package(identifier("0.0.1"))
    blobs.save(place, package("0.0.1"))
    assert ask(stored, identifier("0.0.1")) is not None
    blobs.save(place, package("0.0.2"))
    with pytest.raises(PackageRejected, match=f"is {identifier('0.0.2')}"):
        ask(stored, identifier("0.0.1"))
