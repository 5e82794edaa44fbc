"""The catalogue: a dictionary once warm, right at once here and within a second elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest
from sqlalchemy import event

from tests.patience import patience
from tests.unit.installs.conftest import OTHER, TENANT, House, identifier
from tidegate.errors import DatabaseUnavailable
from tidegate.installs import Catalogue, catalogue
from tidegate.storage import Database, generation

pytestmark = pytest.mark.blocks_hub("packages are built and migrations run in the test's process")

PLUGIN = "tidegate/hello"


@pytest.fixture
def elsewhere(house: House) -> Iterator[Catalogue]:
    """The catalogue of another process: no notices reach it."""
    database = Database(house.settings)
    other = Catalogue(database)
    yield other
    other.close()
    database.dispose()


class Questions:
    """Counts what is asked of a database."""

    def __init__(self, house: House) -> None:
        self.count = 0
        event.listen(house.database._read_engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.count += 1


def test_a_known_plugin_costs_no_question(house: House) -> None:
    name = house.installed()
    first = house.catalogue.installation(TENANT, PLUGIN)
    assert first is not None
    assert first.identifier == name
    assert first.declaration["name"] == "hello"
    assert first.row.plugin_id == PLUGIN
    questions = Questions(house)
    assert house.catalogue.installation(TENANT, PLUGIN) is first
    assert house.catalogue.installation(OTHER, PLUGIN) is None
    asked = questions.count
    assert house.catalogue.installation(OTHER, PLUGIN) is None
    assert questions.count == asked


def test_a_known_plugin_costs_about_a_microsecond(house: House) -> None:
    house.installed()
    house.catalogue.installation(TENANT, PLUGIN)
    best = 1.0
    for _ in range(5):
        began = time.thread_time()
        for _ in range(10_000):
            house.catalogue.installation(TENANT, PLUGIN)
        best = min(best, (time.thread_time() - began) / 10_000)
    assert best < 5e-6


def test_a_declaration_is_known_from_its_upload_on(house: House) -> None:
    assert house.catalogue.declaration(identifier()) is None
    house.upload()
    found = house.catalogue.declaration(identifier())
    assert found is not None
    assert found["author"] == "tidegate"


def test_the_own_process_sees_a_change_at_once(house: House) -> None:
    house.installed()
    known = house.catalogue.installation(TENANT, PLUGIN)
    assert known is not None
    house.installer.uninstall(TENANT, known.row.id)
    assert house.catalogue.installation(TENANT, PLUGIN) is None


def test_another_process_sees_a_change_within_a_second_without_notices(
    house: House, elsewhere: Catalogue
) -> None:
    assert elsewhere.installation(TENANT, PLUGIN) is None
    house.installed()
    began = time.monotonic()
    while elsewhere.installation(TENANT, PLUGIN) is None:
        assert time.monotonic() - began < patience(1.5)
        gevent.sleep(0.01)


def test_a_notice_makes_a_change_seen_at_once(house: House, elsewhere: Catalogue) -> None:
    assert elsewhere.installation(TENANT, PLUGIN) is None
    house.installed()
    [*_, (_, params)] = [call for call in house.host.calls if call[0] == "changed"]
    elsewhere.invalidate(params["generation"])
    assert elsewhere.installation(TENANT, PLUGIN) is not None


def test_an_old_notice_changes_nothing(house: House) -> None:
    house.installed()
    known = house.catalogue.installation(TENANT, PLUGIN)
    house.catalogue.invalidate(1)
    assert house.catalogue.installation(TENANT, PLUGIN) is known


def test_known_plugins_are_served_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "LOOK_EVERY", 0.01)
    house.installed()
    known = house.catalogue.installation(TENANT, PLUGIN)

    def away(*_: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", away)
        gevent.sleep(0.05)
        assert house.catalogue.installation(TENANT, PLUGIN) is known
        with pytest.raises(DatabaseUnavailable):
            house.catalogue.installation(OTHER, PLUGIN)


def test_T_H3_they_are_also_served_when_something_changed_just_before(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notice empties the catalogue; calls must not fail because nobody can fill it again."""
    house.installed()
    known = house.catalogue.installation(TENANT, PLUGIN)
    asked = []

    def away(*_: object) -> None:
        asked.append(1)
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", away)
        house.catalogue.invalidate(1_000_000)
        for _ in range(5):
            assert house.catalogue.installation(TENANT, PLUGIN) is known
        assert len(asked) == 1, "calls do not queue up at a server that does not answer"
        with pytest.raises(DatabaseUnavailable):
            house.catalogue.installation(OTHER, PLUGIN)
    house.catalogue._down_until = 0.0  # the second is over
    assert house.catalogue.installation(TENANT, PLUGIN) is not known


def test_nobody_looks_when_nobody_asks(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(catalogue, "REST_AFTER", 0.02)
    house.catalogue.installation(TENANT, PLUGIN)
    watcher = house.catalogue._watcher
    assert watcher is not None
    watcher.join(timeout=5)
    assert watcher.ready()
    house.installed()
    assert house.catalogue.installation(TENANT, PLUGIN) is not None


def test_a_watcher_that_breaks_leaves_nothing_that_counts_as_fresh(
    house: House,
    elsewhere: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(catalogue, "LOOK_EVERY", 0.01)
    assert elsewhere.installation(TENANT, PLUGIN) is None
    watcher = elsewhere._watcher
    assert watcher is not None
    with monkeypatch.context() as patch:
        patch.setattr(generation, "current", lambda conn: 1 // 0)
        watcher.join(timeout=5)
        assert watcher.ready(), "it broke"
    house.installed()
    assert elsewhere.installation(TENANT, PLUGIN) is not None
    assert "ZeroDivisionError" in capfd.readouterr().err, "and it was told"


def test_memory_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MOST", 10)
    for number in range(25):
        house.catalogue.installation(TENANT, f"acme/unknown{number}")
    assert len(house.catalogue._installed) <= 10
