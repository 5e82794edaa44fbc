"""What nothing refers to any more is collected; what somebody may still want is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text

from tests.unit.installs.conftest import OTHER, TENANT, House, identifier
from tidegate.errors import PluginStartFailed
from tidegate.installs import collect
from tidegate.storage import declarations, references
from tidegate.storage.tables import plugin_declarations, plugin_installations, plugins


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times that things are kept are over."""
    monkeypatch.setattr(collect, "AFTER_RETIREMENT", timedelta(0))
    monkeypatch.setattr(collect, "TRY_AGAIN", timedelta(0))


def uninstall(house: House, tenant: str = TENANT) -> None:
    row = house.row(tenant)
    assert row is not None
    house.installer.uninstall(tenant, row.id)
    house.settle()


def left(house: House) -> set[str]:
    """Everything below the store and every row that names the plugin."""
    blobs = {blob.key for blob in house.blobs.list("plugin_packages") + house.blobs.list("plugin")}
    rows = set()
    with house.database.read() as conn:
        for table in (plugins, plugin_declarations, plugin_installations):
            found = conn.execute(select(table.c.plugin_unique_identifier)).scalars()
            rows |= {f"{table.name}: {one}" for one in found}
    return blobs | rows


def test_T13_after_ten_upgrades_and_an_uninstall_nothing_is_left(
    house: House, no_patience: None
) -> None:
    house.installed("0.0.1")
    for number in range(1, 11):
        old, new = f"0.0.{number}", f"0.0.{number + 1}"
        house.upload(new)
        house.installer.upgrade(TENANT, identifier(old), identifier(new), "package", {})
        house.settle()
    uninstall(house)
    house.worker.collect()
    house.settle()
    assert left(house) == set()
    removed = {params["identifier"] for op, params in house.host.calls if op == "remove"}
    assert removed == {identifier(f"0.0.{number}") for number in range(1, 12)}


def test_a_package_is_there_for_whoever_installs_it_again_at_once(house: House) -> None:
    name = house.installed()
    uninstall(house)
    house.worker.collect()
    assert house.shelf.has_package(name)
    house.install(name)
    house.settle()
    assert house.row() is not None


def test_one_that_is_used_or_on_its_way_is_left_alone(house: House, no_patience: None) -> None:
    used = house.installed("0.0.1")
    house.upload("0.0.2")
    with house.host.held("install"):
        house.install(identifier("0.0.2"), OTHER)
        assert not house.worker.collect()
    house.settle()
    assert house.shelf.has_package(used)
    assert house.shelf.has_package(identifier("0.0.2"))


def test_a_failed_installation_can_be_tried_again(house: House, no_patience: None) -> None:
    name = house.upload()
    house.host.fail("install", PluginStartFailed("no luck"))
    house.install(name)
    house.settle()
    house.worker.collect()
    assert house.shelf.has_package(name)


def test_an_upload_that_came_after_the_retirement_began_stays(
    house: House, no_patience: None
) -> None:
    name = house.installed()
    row = house.row()
    assert row is not None
    with house.host.held("remove"):
        house.installer.uninstall(TENANT, row.id)
        house.upload()
    house.settle()
    house.worker.collect()
    assert house.shelf.has_package(name)


def test_an_upload_in_the_middle_of_a_round_stays(
    house: House, no_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = house.installed()
    uninstall(house)
    real = collect.Collector._forget

    def forget(*arguments: object) -> bool:
        gone = real(*arguments)
        house.upload()
        return gone

    monkeypatch.setattr(collect.Collector, "_forget", forget)
    house.worker.collect()
    assert house.shelf.has_package(name)
    assert house.install(name).task_id, "and it can be installed"


def test_an_upload_that_nobody_installs_goes_when_its_time_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = house.upload()
    assert not house.worker.collect()
    _let_a_day_pass(monkeypatch)
    found = house.worker.collect()
    assert (found.packages, found.icons) == (1, 1)
    assert not house.shelf.has_package(name)
    assert house.shelf.icons() == []
    with house.database.read() as conn:
        assert declarations.get(conn, name) is None


def test_D_63_icons_stay_as_long_as_any_declaration_names_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.installed("0.0.1")
    house.upload("0.0.2")  # the same icon
    icons = house.shelf.icons()
    _let_a_day_pass(monkeypatch)
    assert house.worker.collect().packages == 1
    assert house.shelf.icons() == icons


def test_a_mark_and_a_process_without_a_row_are_retired(house: House) -> None:
    name = house.installed()
    with house.database.write() as conn:
        conn.execute(text("delete from plugin_installations"))
    assert house.worker.collect().retired == [name]
    house.settle()
    assert not house.shelf.is_marked_installed(name)
    assert house.host.count("remove") == 1


def test_what_only_the_host_holds_is_retired_too(house: House) -> None:
    name = house.upload()
    house.host.holds = [name]
    assert house.worker.collect().retired == [name]
    house.settle()
    assert ("remove", {"identifier": name}) in house.host.calls


def test_a_retirement_that_failed_is_not_tried_all_the_time(house: House) -> None:
    name = house.installed()
    with house.database.write() as conn:
        conn.execute(text("delete from plugin_installations"))
    house.host.fail("remove", PluginStartFailed("busy"))
    assert house.worker.collect().retired == [name]
    house.settle()
    assert house.worker.collect().retired == []


def test_rows_that_a_dead_daemon_left_go(house: House, no_patience: None) -> None:
    with house.database.write() as conn:
        references.add(conn, identifier("9.9.9"), install_type="local", source="package")
        declarations.put_if_absent(conn, identifier("9.9.8"), "{}")
    found = house.worker.collect()
    assert (found.rows, found.declarations) == (1, 1)
    assert left(house) == set()


def test_files_that_are_no_packages_are_not_ours(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.blobs.save("plugin_packages/notes.txt", b"x")
    house.blobs.save("plugin/notes.txt", b"x")
    _let_a_day_pass(monkeypatch)
    assert not house.worker.collect()
    assert house.blobs.exists("plugin/notes.txt")


def _let_a_day_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow:
        def __init__(self, clock: object) -> None:
            self._clock = clock

        def now(self):
            return self._clock.now() + timedelta(hours=25)

    monkeypatch.setattr(collect, "SYSTEM_CLOCK", Tomorrow(collect.SYSTEM_CLOCK))
