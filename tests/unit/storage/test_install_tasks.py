"""Install tasks: how a task's status follows from its entries (spec/http/02 section 5)."""

from __future__ import annotations

from datetime import timedelta

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from tests.unit.storage.conftest import OTHER_TENANT, TENANT
from tidegate.clock import SYSTEM_CLOCK
from tidegate.storage import Database, install_tasks
from tidegate.storage.install_tasks import FAILED, PENDING, RUNNING, SUCCESS, Task, TaskEntry
from tidegate.storage.messages import LIMIT, shortened

ONE, TWO = f"acme/one:0.0.1@{'a' * 64}", f"acme/two:0.0.1@{'b' * 64}"


@pytest.fixture
def task(database: Database) -> Task:
    """A task with two plugins."""
    labels = {"en_US": "One", "zh_Hans": "一"}
    with database.write() as conn:
        return install_tasks.create(
            conn,
            TENANT,
            [TaskEntry(ONE, source="package", labels=labels, icon="i.svg"), TaskEntry(TWO)],
        )


def _set(database: Database, task: Task, identifier: str, status: str, message: str = "") -> Task:
    with database.write() as conn:
        changed = install_tasks.set_entry(conn, task.id, identifier, status=status, message=message)
    assert changed is not None
    return changed


def test_a_new_task_runs_and_its_entries_wait(database: Database, task: Task) -> None:
    assert (task.status, task.total_plugins, task.completed_plugins) == (RUNNING, 2, 0)
    assert [entry.status for entry in task.plugins] == [PENDING, PENDING]
    assert task.plugins[0].plugin_id == "acme/one"
    with database.read() as conn:
        assert install_tasks.get(conn, TENANT, task.id) == task


def test_an_entry_that_is_installed_already_can_start_as_success(database: Database) -> None:
    with database.write() as conn:
        task = install_tasks.create(conn, TENANT, [TaskEntry(ONE, status=SUCCESS), TaskEntry(TWO)])
    assert (task.status, task.completed_plugins) == (RUNNING, 1)


def test_all_entries_succeeded_is_success(database: Database, task: Task) -> None:
    assert _set(database, task, ONE, SUCCESS, "installed").status == RUNNING
    done = _set(database, task, TWO, SUCCESS, "installed")
    assert (done.status, done.completed_plugins) == (SUCCESS, 2)
    assert done.updated_at >= task.updated_at


def test_one_failure_fails_the_task_at_once_and_others_go_on(
    database: Database, task: Task
) -> None:
    assert _set(database, task, ONE, FAILED, "boom").status == FAILED
    after = _set(database, task, TWO, SUCCESS)
    assert (after.status, after.completed_plugins) == (FAILED, 1)


def test_a_late_success_overrides_an_earlier_failure(database: Database, task: Task) -> None:
    _set(database, task, ONE, FAILED)
    _set(database, task, TWO, SUCCESS)
    after = _set(database, task, ONE, SUCCESS)
    assert (after.status, after.completed_plugins) == (SUCCESS, 2)


def test_telling_it_twice_counts_once(database: Database, task: Task) -> None:
    _set(database, task, ONE, SUCCESS)
    assert _set(database, task, ONE, SUCCESS).completed_plugins == 1


def test_progress_changes_the_message_only(database: Database, task: Task) -> None:
    _set(database, task, ONE, RUNNING, "starting")
    with database.write() as conn:
        changed = install_tasks.set_entry(conn, task.id, ONE, message="resolving")
    assert changed is not None
    entry = changed.entry(ONE)
    assert entry is not None
    assert (entry.status, entry.message) == (RUNNING, "resolving")
    assert (entry.labels["zh_Hans"], entry.icon, entry.source) == ("一", "i.svg", "package")


def test_a_deleted_task_or_entry_is_ignored(database: Database, task: Task) -> None:
    with database.write() as conn:
        assert install_tasks.set_entry(conn, TENANT, ONE, status=SUCCESS) is None
        assert install_tasks.set_entry(conn, "no id", ONE, status=SUCCESS) is None
        assert install_tasks.set_entry(conn, task.id, "other", status=SUCCESS) is None
        assert install_tasks.delete(conn, TENANT, task.id)
        assert not install_tasks.delete(conn, TENANT, task.id)
        assert install_tasks.set_entry(conn, task.id, ONE, status=SUCCESS) is None


def test_a_task_stays_until_its_last_entry_goes(database: Database, task: Task) -> None:
    _set(database, task, ONE, SUCCESS)
    _set(database, task, TWO, FAILED)
    with database.write() as conn:
        assert install_tasks.delete_entry(conn, TENANT, task.id, TWO)
        left = install_tasks.get(conn, TENANT, task.id)
        assert left is not None
        assert left.status == SUCCESS
        assert (left.total_plugins, left.completed_plugins) == (2, 1), "counters stay"
        assert not install_tasks.delete_entry(conn, TENANT, task.id, TWO)
        assert install_tasks.delete_entry(conn, TENANT, task.id, ONE)
        assert install_tasks.get(conn, TENANT, task.id) is None


def test_T_S11_another_tenants_task_is_as_unknown(database: Database, task: Task) -> None:
    with database.write() as conn:
        assert install_tasks.get(conn, OTHER_TENANT, task.id) is None
        assert install_tasks.get(conn, TENANT, "malformed") is None
        assert not install_tasks.delete(conn, OTHER_TENANT, task.id)
        assert not install_tasks.delete(conn, TENANT, "malformed")
        assert not install_tasks.delete_entry(conn, OTHER_TENANT, task.id, ONE)
        assert install_tasks.delete_all(conn, OTHER_TENANT) == 0
        assert install_tasks.get(conn, TENANT, task.id) == task


def test_pages_are_newest_first_and_delete_all_takes_running_ones(database: Database) -> None:
    with database.write() as conn:
        made = [install_tasks.create(conn, TENANT, [TaskEntry(ONE)]) for _ in range(5)]
        other = install_tasks.create(conn, OTHER_TENANT, [TaskEntry(ONE)])
    with database.read() as conn:
        first, total = install_tasks.page(conn, TENANT, 0, 3)
        second, _ = install_tasks.page(conn, TENANT, 3, 3)
    assert total == 5
    assert [task.id for task in first + second] == [task.id for task in reversed(made)]
    with database.write() as conn:
        assert install_tasks.delete_all(conn, TENANT) == 5
        assert install_tasks.page(conn, TENANT, 0, 3) == ([], 0)
        assert install_tasks.unfinished(conn, 10) == [other]


def test_D_15_only_wholly_successful_tasks_are_cleaned_up(database: Database, task: Task) -> None:
    later = SYSTEM_CLOCK.now() + timedelta(seconds=60)
    _set(database, task, ONE, SUCCESS)
    with database.write() as conn:
        assert install_tasks.delete_succeeded(conn, later) == 0, "a sibling still runs"
    _set(database, task, TWO, FAILED)
    with database.write() as conn:
        assert install_tasks.delete_succeeded(conn, later) == 0, "failed ones stay"
    done = _set(database, task, TWO, SUCCESS)
    with database.write() as conn:
        early = done.updated_at - timedelta(microseconds=1)
        assert install_tasks.delete_succeeded(conn, early) == 0
        assert install_tasks.delete_succeeded(conn, done.updated_at) == 1


def test_jobs_of_one_task_do_not_overwrite_each_other(database: Database) -> None:
    names = [f"acme/p{number}:0.0.1@{'a' * 64}" for number in range(12)]
    with database.write() as conn:
        task = install_tasks.create(conn, TENANT, [TaskEntry(name) for name in names])

    def work(name: str) -> None:
        for status in (RUNNING, SUCCESS):
            _set(database, task, name, status)
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(work, name) for name in names], raise_error=True)
    with database.read() as conn:
        after = install_tasks.get(conn, TENANT, task.id)
    assert after is not None
    assert (after.status, after.completed_plugins) == (SUCCESS, 12)


def test_D_13_a_broken_row_does_not_fail_the_list(database: Database, task: Task) -> None:
    with database.write() as conn:
        conn.execute(text("UPDATE install_tasks SET plugins = '[{]'"))
        rows, _ = install_tasks.page(conn, TENANT, 0, 10)
    assert [row.plugins for row in rows] == [()]


def test_what_a_plugin_printed_can_be_kept(database: Database, task: Task) -> None:
    entry = _set(database, task, ONE, FAILED, "a\0b \udcff \u2028 \U0001f600").entry(ONE)
    assert entry is not None
    assert entry.message == "ab ? \u2028 \U0001f600"


def test_a_long_message_keeps_head_and_tail() -> None:
    assert shortened("x" * LIMIT) == "x" * LIMIT
    assert shortened("h" * 600 + "-" * 5000 + "t" * 600) == "h" * 512 + "..." + "t" * 512


@given(st.text(max_size=900).map(lambda part: part * 3))
def test_a_shortened_message_is_never_cut_inside_a_character(message: str) -> None:
    kept = shortened(message)
    assert len(kept.encode()) <= LIMIT + 3
    head, _, tail = kept.partition("...") if len(message.encode()) > LIMIT else (kept, "", "")
    clean = message.replace("\0", "")
    assert clean.startswith(head)
    assert clean.endswith(tail)
