"""A package that is swapped after it was checked is not what runs (T-S8)."""

from __future__ import annotations

import pytest

from tests.hosting import PLUGINS, package_of, running_host
from tests.unit.installs.conftest import House, identifier, package
from tidegate.errors import PackageRejected
from tidegate.settings import Settings
from tidegate.storage import migrate

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
