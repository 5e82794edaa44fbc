"""What is installed is built on this host in the background, and mended where rows promise more."""

from __future__ import annotations

import gevent
import pytest
from sqlalchemy import text

from tests.patience import patience
from tests.unit.installs.conftest import OTHER, TENANT, House, identifier, package
from tidegate.errors import EnvironmentFailed, HostLost
from tidegate.installs import reconcile
from tidegate.storage import declarations


def _asked(house: House) -> list[str]:
    return [params["identifier"] for op, params in house.host.calls if op == "prepare"]


@pytest.fixture
def two(house: House) -> list[str]:
    """Two versions, each with a tenant of its own; the host's record begins after that."""
    found = sorted([house.installed("0.0.1"), house.installed("0.0.2", OTHER)])
    house.host.calls.clear()
    return found


def test_each_installed_version_is_prepared_once_a_round(house: House, two: list[str]) -> None:
    house.install(two[0], OTHER)  # a second tenant is no second environment
    house.sender.join()
    house.worker.reconcile()
    assert _asked(house) == two
    house.worker.reconcile()
    assert _asked(house) == two * 2


def test_versions_that_nobody_has_and_debugged_ones_are_left_alone(
    house: House, two: list[str]
) -> None:
    house.upload("0.0.3")
    with house.database.write() as conn:
        conn.execute(
            text("UPDATE plugin_installations SET runtime_type = 'remote' WHERE tenant_id = :t"),
            {"t": TENANT},
        )
    house.worker.reconcile()
    assert _asked(house) == [identifier("0.0.2")]


def test_they_are_built_one_after_the_other_and_a_second_round_does_not_join_in(
    house: House, two: list[str]
) -> None:
    with house.host.held("prepare"):
        first = gevent.spawn(house.worker.reconcile)
        gevent.sleep(0)
        while not _asked(house):
            gevent.sleep(0.001)
        assert house.worker.reconcile() == 0
        assert _asked(house) == two[:1]
    first.get(timeout=5)
    assert _asked(house) == two


def test_one_that_cannot_be_built_holds_the_others_up_once(
    house: House,
    two: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    house.host.fail("prepare", EnvironmentFailed("no matching distribution"))
    house.worker.reconcile()
    assert _asked(house) == two
    house.worker.reconcile()
    assert _asked(house) == [*two, two[1]], "the broken one waits"
    monkeypatch.setattr(reconcile.time, "monotonic", lambda: 1e12)
    house.worker.reconcile()
    assert _asked(house)[3:] == two, "until its time has come"
    assert "Traceback" not in capfd.readouterr().err, "a line of the log says it"


def test_what_was_uninstalled_is_forgotten_and_looked_at_anew_when_it_comes_back(
    house: House, two: list[str]
) -> None:
    house.host.fail("prepare", EnvironmentFailed("no matching distribution"))
    house.worker.reconcile()
    kept = house.worker._reconciler
    assert (kept._whole, len(kept._failures)) == (set(two), 1)
    with house.database.write() as conn:
        conn.execute(text("DELETE FROM plugin_installations"))
    house.worker.reconcile()
    assert (kept._whole, kept._failures) == (set(), {})


def test_without_a_host_the_round_ends_and_nothing_counts_as_broken(
    house: House, two: list[str]
) -> None:
    house.host.fail("prepare", HostLost("no host"))
    house.worker.reconcile()
    assert _asked(house) == two[:1]
    house.worker.reconcile()
    assert _asked(house) == [two[0], *two]


def test_a_worker_that_stops_leaves_the_round(house: House, two: list[str]) -> None:
    with house.host.held("prepare"):
        running = gevent.spawn(house.worker.reconcile)
        while not _asked(house):
            gevent.sleep(0.001)
        house.worker.stop()
        running.get(timeout=patience(2))
    assert _asked(house) == two[:1]
    assert house.host.cancelled == ["prepare"]


def test_a_lost_declaration_and_a_lost_marker_come_back(house: House, two: list[str]) -> None:
    with house.database.write() as conn:
        assert declarations.delete(conn, two[0])
    house.shelf.unmark_installed(two[0])
    house.worker.reconcile()
    with house.database.read() as conn:
        assert declarations.get(conn, two[0]) is not None
    assert house.shelf.is_marked_installed(two[0])


def test_the_marker_is_a_package_too_when_the_upload_was_cleared_away(
    house: House, two: list[str]
) -> None:
    house.shelf.drop_package(two[0])
    with house.database.write() as conn:
        declarations.delete(conn, two[0])
    house.worker.reconcile()
    with house.database.read() as conn:
        assert declarations.get(conn, two[0]) is not None
    assert house.shelf.package(two[0]) == package("0.0.1")


def test_one_that_was_uninstalled_while_it_was_built_is_retired(
    house: House, two: list[str]
) -> None:
    house.host.built = True
    with house.host.held("prepare"):
        running = gevent.spawn(house.worker.reconcile)
        while not _asked(house):
            gevent.sleep(0.001)
        row = house.row()
        assert row is not None
        house.installer.uninstall(TENANT, row.id)
        house.sender.join()  # the retirement came before the end of the build
    running.get(timeout=5)
    assert [(job.kind, job.key) for job in house.open_jobs()] == [("retire", two[0])]
