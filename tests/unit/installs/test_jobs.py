"""Jobs killed, failed, cancelled, doubled: absent or installed, never between."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from tests.patience import patience, wait_until
from tests.unit.installs.conftest import OTHER, TENANT, House, Killed, identifier
from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import (
    BlobUnavailable,
    DatabaseUnavailable,
    EnvironmentFailed,
    HostLost,
    IllegalTransition,
    PluginStartFailed,
)
from tidegate.installs import TRANSITIONS, InstallState
from tidegate.installs.runner import MAX_TRIES
from tidegate.installs.states import BUILD_STEPS, check, path_to
from tidegate.jobs import Owners
from tidegate.storage import declarations, install_tasks, job_rows

pytestmark = pytest.mark.blocks_hub("packages are built and migrations run in the test's process")

_S = InstallState
POINTS = [(state, committed) for state in (*BUILD_STEPS, _S.INSTALLED) for committed in (0, 1)]
FAILED_POINTS = [(_S.RESOLVING, 1), (_S.BUILDING, 1), (_S.FAILED, 0), (_S.FAILED, 1)]


class KillAt:
    """A fail point: kills the job that reaches a step, before or after its commit, once."""

    def __init__(self, state: InstallState, committed: int) -> None:
        self.where = (state, bool(committed))
        self.reached = False

    def __call__(self, state: InstallState, committed: bool) -> None:
        if (state, committed) == self.where and not self.reached:
            self.reached = True
            raise Killed


def restart(house: House) -> None:
    """The worker was killed; the next one begins, and the dead one's leases end."""
    house.sender.join()
    house.new_worker()
    house.settle()


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize("before", list(InstallState))
def test_only_the_steps_of_the_table_are_taken(before: InstallState) -> None:
    for after in InstallState:
        if after in TRANSITIONS[before]:
            check(before, after)
        else:
            with pytest.raises(IllegalTransition, match=f"from {before.value} to {after.value}"):
                check(before, after)


def test_every_state_but_the_ends_can_fail() -> None:
    on_the_way = set(InstallState) - {_S.ABSENT, _S.INSTALLED, _S.FAILED}
    assert all(_S.FAILED in TRANSITIONS[state] for state in on_the_way)


def test_no_build_step_is_skipped() -> None:
    assert path_to(_S.RESOLVING, _S.PROBING) == (_S.BUILDING, _S.PROBING)
    assert path_to(_S.PROBING, _S.RESOLVING) == ()
    assert path_to(_S.INSTALLED, _S.PROBING) == ()


def test_a_job_goes_through_all_states_in_order(house: House) -> None:
    seen: list[InstallState] = []
    house.new_worker(lambda state, committed: seen.append(state) if committed else None)
    house.installed()
    assert seen == [_S.RESOLVING, _S.BUILDING, _S.PROBING, _S.INSTALLED]


# --------------------------------------------------------------------------- T-I1


@pytest.mark.parametrize(("state", "committed"), POINTS)
def test_T_I1_an_install_killed_at_any_step_is_absent_and_then_installed(
    house: House, state: InstallState, committed: int
) -> None:
    name = house.upload()
    kill = KillAt(state, committed)
    house.new_worker(kill)
    answer = house.install(name)
    house.sender.join()
    assert kill.reached
    whole = (state, committed) == (_S.INSTALLED, 1)
    assert (house.row() is not None) == whole
    assert house.task(answer).status == ("success" if whole else "running")
    restart(house)
    assert house.task(answer).status == "success"
    assert house.task(answer).completed_plugins == 1
    row = house.row()
    assert row is not None
    assert row.identifier == name
    assert house.shelf.is_marked_installed(name)


@pytest.mark.parametrize(("state", "committed"), FAILED_POINTS)
def test_T_I1_a_failing_install_killed_at_any_step_leaves_nothing(
    house: House, state: InstallState, committed: int
) -> None:
    name = house.upload()
    house.host.fail("install", *[EnvironmentFailed("no such version")] * 3)
    kill = KillAt(state, committed)
    house.new_worker(kill)
    answer = house.install(name)
    house.sender.join()
    assert kill.reached
    restart(house)
    assert house.row() is None
    assert house.task(answer).status == "failed"
    assert house.host.calls[-1][0] == "remove"
    assert not house.shelf.is_marked_installed(name)
    assert house.open_jobs() == []


@pytest.mark.parametrize(("state", "committed"), [*POINTS, (_S.UPGRADING, 0), (_S.UPGRADING, 1)])
def test_T_I1_an_upgrade_killed_at_any_step_has_the_old_or_the_new_version(
    house: House, state: InstallState, committed: int
) -> None:
    old = house.installed()
    new = house.upload("0.0.2")
    kill = KillAt(state, committed)
    house.new_worker(kill)
    answer = house.installer.upgrade(TENANT, old, new, "package")
    house.sender.join()
    assert kill.reached
    row = house.row()
    assert row is not None
    assert row.identifier == (new if (state, committed) == (_S.INSTALLED, 1) else old)
    restart(house)
    row = house.row()
    assert row is not None
    assert row.identifier == new
    assert house.task(answer).status == "success"
    assert house.shelf.is_marked_installed(new)
    assert not house.shelf.is_marked_installed(old)


@pytest.mark.parametrize(
    ("state", "committed"), [(_S.REMOVING, 0), (_S.REMOVING, 1), (_S.ABSENT, 0), (_S.ABSENT, 1)]
)
def test_T_I1_a_removal_killed_at_any_step_ends_absent(
    house: House, state: InstallState, committed: int
) -> None:
    name = house.installed()
    kill = KillAt(state, committed)
    house.new_worker(kill)
    row = house.row()
    assert row is not None
    house.installer.uninstall(TENANT, row.id)
    house.sender.join()
    assert kill.reached
    restart(house)
    assert house.row() is None
    assert ("remove", {"identifier": name}) in house.host.calls
    assert not house.shelf.is_marked_installed(name)
    assert house.open_jobs() == []


# --------------------------------------------------------------------------- T-I2


def test_T_I2_twenty_tenants_at_once_are_one_build(house: House) -> None:
    name = house.upload()
    tenants = [f"0198c5d2-0000-7000-8000-{number:012}" for number in range(20)]
    with house.host.held("install"):
        answers = {tenant: house.install(name, tenant) for tenant in tenants}
        house.until_jobs(name, len(tenants))
    house.sender.join()
    assert house.host.count("install") == 1
    for tenant, answer in answers.items():
        assert house.task(answer, tenant).status == "success"
        assert house.row(tenant) is not None


def test_T_I2_one_failed_build_fails_all_that_waited_and_is_cleaned_up_once(
    house: House,
) -> None:
    name = house.upload()
    house.host.fail("install", EnvironmentFailed("no such version"))
    with house.host.held("install"):
        answers = {tenant: house.install(name, tenant) for tenant in (TENANT, OTHER)}
        house.until_jobs(name, len(answers))
    house.settle()
    for tenant, answer in answers.items():
        assert house.entry(answer, tenant).message == "failed to launch plugin: no such version"
    assert house.host.count("remove") == 1


# --------------------------------------------------------------------------- failing


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (EnvironmentFailed("uv: no matching distribution"), "uv: no matching distribution"),
        (
            PluginStartFailed("plugin failed to start: exit code 3", stderr="ImportError: nope"),
            "plugin failed to start: exit code 3\nImportError: nope",
        ),
        (PluginStartFailed("failed to launch plugin: ends early"), "ends early"),
    ],
)
def test_D_69_a_failed_install_says_why_and_leaves_no_marker(
    house: House, error: Exception, words: str
) -> None:
    name = house.upload()
    house.host.fail("install", error)
    answer = house.install(name)
    house.settle()
    assert house.task(answer).status == "failed"
    assert house.entry(answer).message == f"failed to launch plugin: {words}"
    assert not house.shelf.is_marked_installed(name)
    assert [op for op, _ in house.host.calls[-2:]] == ["stop", "remove"]
    again = house.install(name)
    house.settle()
    assert house.task(again).status == "success"


def test_a_failed_install_of_what_others_use_leaves_theirs_alone(house: House) -> None:
    name = house.installed()
    house.host.fail("install", EnvironmentFailed("disk full"))
    answer = house.install(name, OTHER)
    house.settle()
    assert house.task(answer, OTHER).status == "failed"
    assert house.host.count("remove") == 0
    assert house.row() is not None


def test_a_failed_upgrade_leaves_the_old_version_as_it_was(house: House) -> None:
    old = house.installed()
    new = house.upload("0.0.2")
    house.host.fail("install", EnvironmentFailed("no such version"))
    answer = house.installer.upgrade(TENANT, old, new, "package")
    house.settle()
    assert house.task(answer).status == "failed"
    row = house.row()
    assert row is not None
    assert row.identifier == old
    assert ("remove", {"identifier": new}) in house.host.calls
    assert ("stop", {"identifier": old}) not in house.host.calls


def test_one_broken_plugin_of_a_task_does_not_stop_the_others(house: House) -> None:
    good = house.upload()
    bad = house.upload("0.0.2").replace("hello", "other")
    house.blobs.save(f"plugin_packages/{bad}", b"no package")
    with house.database.write() as conn:
        declarations.put_if_absent(conn, bad, "{}")
    house.blobs.delete(f"plugin_packages/{bad}")
    answer = house.installer.install(TENANT, [good, bad], "package", [{}, {}])
    house.settle()
    task = house.task(answer)
    assert (task.status, task.completed_plugins) == ("failed", 1)
    assert [entry.status for entry in task.plugins] == ["success", "failed"]
    assert task.plugins[1].message.startswith("failed to move plugin to installed bucket")


def test_an_install_waits_for_a_host_that_is_away(house: House) -> None:
    name = house.upload()
    house.host.fail("install", HostLost("no host"), HostLost("no host"))
    answer = house.install(name)
    house.sender.join()
    assert house.task(answer).status == "success"
    assert house.host.count("install") == 3


def test_a_mistake_of_ours_fails_the_task_with_words(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = house.upload()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("tidegate.installs.shelf.Shelf.mark_installed", broken)
    answer = house.install(name)
    house.settle()
    assert house.entry(answer).message == "internal error: ZeroDivisionError: division by zero"
    assert house.row() is None


def test_a_store_that_is_away_delays_the_install(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = house.upload()

    def away(*_: object) -> None:
        raise BlobUnavailable("the store does not answer")

    monkeypatch.setattr("tidegate.installs.runner._PAUSE", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr("tidegate.installs.shelf.Shelf.mark_installed", away)
        answer = house.install(name)
        wait_until(lambda: len(house.sender.sent) == 2)
        assert house.task(answer).status == "running"
    house.sender.join()
    assert house.task(answer).status == "success", "begun again by itself, before its lease is over"
    assert len(house.sender.sent) <= MAX_TRIES


def test_a_database_that_is_away_when_the_message_comes_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, tries, claim = house.upload(), [0], job_rows.claim

    def away_twice(*given: Any) -> job_rows.JobRow | None:
        tries[0] += 1
        if tries[0] < 3:
            raise DatabaseUnavailable("away")
        return claim(*given)

    monkeypatch.setattr("tidegate.installs.runner._PAUSE", 0.01)
    monkeypatch.setattr(job_rows, "claim", away_twice)
    answer = house.install(name)
    house.sender.join()
    assert house.task(answer).status == "success"
    assert len(house.sender.sent) == 1


def test_a_dead_workers_job_goes_on_at_once_and_a_living_ones_is_left_alone(house: House) -> None:
    """Nobody waits for the lease of a process that is not there any more."""
    name = house.upload()
    house.new_worker(KillAt(_S.BUILDING, 1))
    answer = house.install(name)
    house.sender.join()
    first, house.owners = house.owners, Owners(house.settings.home.run / "workers")
    house.new_worker()
    assert house.worker.resume_abandoned() == 0, "it lives: its lock is held"
    first.disown()  # as the kernel does at its death: the lock is free, its file stays
    assert house.worker.resume_abandoned() == 1
    house.sender.join()
    first.close()
    assert house.task(answer).status == "success"
    assert house.owners.known() == set(), "the dead are forgotten"


def test_an_install_that_kills_its_worker_each_time_is_given_up(house: House) -> None:
    name = house.upload()

    def always(state: InstallState, committed: bool) -> None:
        if state is _S.BUILDING:
            raise Killed

    house.new_worker(always)
    answer = house.install(name)
    house.settle()
    assert "begun 5 times and never ended" in house.entry(answer).message
    assert house.row() is None


# --------------------------------------------------------------------------- leaving


def test_deleting_a_running_task_cancels_its_build_and_cleans_up(house: House) -> None:
    name = house.upload()
    with house.host.held("install:environment"):
        answer = house.install(name)
        house.until_held("install:environment")
        with house.database.write() as conn:
            assert install_tasks.delete(conn, TENANT, answer.task_id)
        with gevent.Timeout(patience(3)):
            house.sender.join()
    assert house.host.cancelled == ["install"]
    assert house.host.calls[-1][0] == "remove"
    assert house.row() is None
    assert house.open_jobs() == []


def test_deleting_one_of_two_tasks_leaves_the_other_ones_build_alone(house: House) -> None:
    name = house.upload()
    with house.host.held("install:environment"):
        answer, other = house.install(name), house.install(name, OTHER)
        house.until_jobs(name, 2)
        with house.database.write() as conn:
            install_tasks.delete(conn, TENANT, answer.task_id)
        gevent.sleep(1.2)
    house.settle()
    assert house.task(other, OTHER).status == "success"
    assert house.host.count("install") == 1
    assert house.host.count("remove") == 0
    assert house.row() is None


def test_a_worker_that_stops_gives_its_jobs_back(house: House) -> None:
    name = house.upload()
    with house.host.held("install:environment"):
        answer = house.install(name)
        house.until_held("install:environment")
        house.worker.stop()
        with gevent.Timeout(patience(3)):
            house.sender.join()
    [job] = house.open_jobs()
    assert job.owner is None
    house.new_worker()
    assert house.worker.resume_abandoned() == 1
    house.sender.join()
    assert house.task(answer).status == "success"


def test_a_worker_that_was_thought_dead_changes_nothing(house: House) -> None:
    name = house.upload()
    with house.host.held("install:environment") as gate:
        answer = house.install(name)
        house.until_held("install:environment")
        house.let_leases_end()
        [job] = house.open_jobs()
        with house.database.write() as conn:
            assert job_rows.claim(conn, job.id, "somebody else", 60)
        gate.set()
        house.sender.join()
    assert house.row() is None
    assert house.task(answer).status == "running"


def test_a_second_delivery_finds_nothing_to_do(house: House) -> None:
    name = house.upload()
    answer = house.install(name)
    house.sender.join()
    for _, arguments, _ in list(house.sender.sent):
        house.worker.run(*arguments)
    assert house.host.count("install") == 1
    assert house.task(answer).completed_plugins == 1


# --------------------------------------------------------------------------- retiring


def test_an_install_takes_back_a_retirement_that_has_not_begun(house: House) -> None:
    name = house.installed()
    row = house.row()
    assert row is not None
    runner, house.sender.runner = house.sender.runner, None
    house.installer.uninstall(TENANT, row.id)
    house.sender.runner = runner
    answer = house.install(name)
    house.sender.join()
    assert house.task(answer).status == "success"
    house.settle()
    assert house.host.count("remove") == 0
    assert house.shelf.is_marked_installed(name)


def test_an_install_waits_for_a_retirement_at_work(house: House) -> None:
    name = house.installed()
    row = house.row()
    assert row is not None
    with house.host.held("stop"):
        house.installer.uninstall(TENANT, row.id)
        house.until_held("stop")
        answer = house.install(name)
        gevent.sleep(0.1)
        assert house.host.count("install") == 1
    house.sender.join()
    operations = [op for op, _ in house.host.calls if op != "changed"]
    assert operations == ["install", "stop", "remove", "install"]
    assert house.task(answer).status == "success"
    assert house.shelf.is_marked_installed(name)


def test_a_retirement_of_what_is_about_to_be_installed_ends(house: House) -> None:
    name = house.upload()
    with house.host.held("install"):
        answer, other = house.install(name), house.install(name, OTHER)
        house.until_jobs(name, 2)
        with house.database.write() as conn:
            install_tasks.delete(conn, OTHER, other.task_id)
        gevent.sleep(1.2)
        assert house.host.count("remove") == 0
    house.settle()
    assert house.task(answer).status == "success"


def test_a_retirement_waits_for_a_host_that_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.installs.retire_job._HOST_PAUSE", 0.01)
    name = house.installed()
    house.host.fail("stop", HostLost("no host"))
    row = house.row()
    assert row is not None
    house.installer.uninstall(TENANT, row.id)
    house.settle()
    assert ("remove", {"identifier": name}) in house.host.calls


def test_a_worker_that_stops_gives_a_removal_back(house: House) -> None:
    name = house.installed()
    row = house.row()
    assert row is not None
    with house.host.held("stop"):
        house.installer.uninstall(TENANT, row.id)
        house.until_held("stop")
        house.worker.stop()
        with gevent.Timeout(patience(3)):
            house.sender.join()
    [job] = house.open_jobs()
    assert (job.state, job.owner) == ("removing", None)
    house.new_worker()
    house.settle()
    assert not house.shelf.is_marked_installed(name)


def test_an_install_without_its_package_says_so(house: House) -> None:
    name = house.upload()
    runner, house.sender.runner = house.sender.runner, None
    answer = house.install(name)
    house.sender.runner = runner
    with house.database.write() as conn:
        declarations.delete(conn, name)
    house.shelf.drop_package(name)
    house.settle()
    entry = house.entry(answer)
    assert entry.message == "plugin not found\nfailed to get plugin declaration"


def test_a_removal_that_fails_is_recorded(house: House) -> None:
    house.installed()
    house.host.fail("remove", EnvironmentFailed("permission denied"))
    row = house.row()
    assert row is not None
    seen: list[InstallState] = []
    house.new_worker(lambda state, committed: seen.append(state) if committed else None)
    house.installer.uninstall(TENANT, row.id)
    house.settle()
    assert seen == [_S.REMOVING, _S.FAILED]


def test_D_56_a_waiting_job_renews_its_lease(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.installs.run.RENEW", 0.0)
    name = house.upload()
    assert name == identifier()
    with house.host.held("install:environment"):
        house.install(name)
        house.until_held("install:environment")
        house.let_leases_end()

        def renewed() -> bool:
            with house.database.read() as conn:
                return not job_rows.abandoned(conn, SYSTEM_CLOCK.now())

        wait_until(renewed, 10)
    house.sender.join()
