"""Install tasks: what Dify polls while plugins are being installed (spec/http/02 section 5).

A task has an entry per plugin. Entries go pending -> running -> success | failed, the task's
status follows from them. Several jobs write to one task, so each change locks its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, final

import msgspec
from sqlalchemy import Connection, Row, Select, func, insert, select, update
from sqlalchemy import delete as delete_from

from tidegate.clock import SYSTEM_CLOCK
from tidegate.ids import plugin_id_of, row_id
from tidegate.storage.columns import row_key, tenant_key
from tidegate.storage.dialects import lock_until_commit
from tidegate.storage.messages import shortened
from tidegate.storage.tables import install_tasks as table

PENDING, RUNNING, SUCCESS, FAILED = "pending", "running", "success", "failed"
OPEN = (PENDING, RUNNING)
"""Of entries and tasks that somebody should be working on."""


@final
@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One plugin of a task. ``labels`` by language, icons as asset ids: Dify shows them."""

    identifier: str
    plugin_id: str = ""
    status: str = PENDING
    message: str = ""
    source: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    icon: str = ""
    icon_dark: str = ""


@final
@dataclass(frozen=True, slots=True)
class Task:
    """One row of ``install_tasks`` with its entries in the order of the request."""

    id: str
    tenant: str
    status: str
    total_plugins: int
    completed_plugins: int
    plugins: tuple[TaskEntry, ...]
    created_at: datetime
    updated_at: datetime

    def entry(self, identifier: str) -> TaskEntry | None:
        """The entry of one plugin, if it is still there."""
        return next((one for one in self.plugins if one.identifier == identifier), None)


def lock_requests(conn: Connection, tenant: str) -> None:
    """Until the commit, nobody else makes a task for this tenant; call it before looking for one.

    Two requests at once would both find none and make two. SQLite's write transaction is such a
    lock already; PostgreSQL has no row yet that could be locked.
    """
    lock_until_commit(conn, f"install request of {tenant_key(tenant)}")


def create(conn: Connection, tenant: str, entries: Iterable[TaskEntry]) -> Task:
    """A new task, running. Called once per install or upgrade request."""
    now = SYSTEM_CLOCK.now()
    plugins = tuple(
        replace(one, plugin_id=one.plugin_id or plugin_id_of(one.identifier)) for one in entries
    )
    task = Task(
        id=str(row_id()),
        tenant=tenant_key(tenant),
        status=_status(plugins),
        total_plugins=len(plugins),
        completed_plugins=sum(one.status == SUCCESS for one in plugins),
        plugins=plugins,
        created_at=now,
        updated_at=now,
    )
    conn.execute(insert(table).values(tenant_id=task.tenant, created_at=now, **_values(task)))
    return task


def get(conn: Connection, tenant: str, task_id: str) -> Task | None:
    """One task; None for another tenant's or a malformed id."""
    key = row_key(task_id)
    if key is None:
        return None
    row = conn.execute(_of_tenant(tenant).where(table.c.id == key)).first()
    return _task(row) if row is not None else None


def page(conn: Connection, tenant: str, offset: int, limit: int) -> tuple[list[Task], int]:
    """``limit`` tasks from ``offset`` on, newest first, and how many there are."""
    counted = select(func.count()).where(table.c.tenant_id == tenant_key(tenant))
    order = (table.c.created_at.desc(), table.c.id.desc())
    rows = conn.execute(_of_tenant(tenant).order_by(*order).offset(offset).limit(limit))
    return [_task(row) for row in rows], int(conn.execute(counted).scalar_one())


def set_entry(
    conn: Connection,
    task_id: str,
    identifier: str,
    *,
    status: str | None = None,
    message: str | None = None,
) -> Task | None:
    """Change one entry and what follows from it; None when task or entry was deleted meanwhile.

    Called by the job that installs the plugin. Long messages are shortened.
    """
    task = _locked(conn, task_id)
    before = task.entry(identifier) if task else None
    if task is None or before is None:
        return None
    after = replace(
        before,
        status=status or before.status,
        message=before.message if message is None else shortened(message),
    )
    plugins = tuple(after if one is before else one for one in task.plugins)
    # A step and not a count: deleted entries stay counted, as in the reference.
    step = (after.status == SUCCESS) - (before.status == SUCCESS)
    return _save(conn, task, plugins=plugins, completed_plugins=task.completed_plugins + step)


def delete(conn: Connection, tenant: str, task_id: str) -> bool:
    """Delete one task; its jobs go on and find no row. False when there was none."""
    key = row_key(task_id)
    if key is None:
        return False
    mine = (table.c.id == key, table.c.tenant_id == tenant_key(tenant))
    return conn.execute(delete_from(table).where(*mine)).rowcount > 0


def delete_all(conn: Connection, tenant: str) -> int:
    """Delete a tenant's tasks, running ones too; how many."""
    statement = delete_from(table).where(table.c.tenant_id == tenant_key(tenant))
    return conn.execute(statement).rowcount


def delete_entry(conn: Connection, tenant: str, task_id: str, identifier: str) -> bool:
    """Take one plugin out of a task; the task goes with its last entry (errata).

    The counters stay as they are, as in the reference.
    """
    task = _locked(conn, task_id)
    if task is None or task.tenant != tenant_key(tenant) or task.entry(identifier) is None:
        return False
    left = tuple(one for one in task.plugins if one.identifier != identifier)
    if left:
        _save(conn, task, plugins=left, completed_plugins=task.completed_plugins)
    else:
        conn.execute(delete_from(table).where(table.c.id == task.id))
    return True


def delete_succeeded(conn: Connection, before: datetime) -> int:
    """Delete tasks all of whose plugins were installed before that time (D-15); how many.

    Called by the schedule. Failed tasks stay until somebody deletes them.
    """
    done = (table.c.status == SUCCESS, table.c.updated_at <= before)
    return conn.execute(delete_from(table).where(*done)).rowcount


def unfinished(conn: Connection, limit: int) -> list[Task]:
    """Tasks that still run, oldest first. For the schedule, which knows which jobs are left."""
    statement = select(table).where(table.c.status.in_(OPEN))
    rows = conn.execute(statement.order_by(table.c.created_at, table.c.id).limit(limit))
    return [_task(row) for row in rows]


# --------------------------------------------------------------------------- rows


def _status(plugins: Iterable[TaskEntry]) -> str:
    found = {one.status for one in plugins}
    if FAILED in found:
        return FAILED
    # Also for no entries at all.
    return SUCCESS if found <= {SUCCESS} else RUNNING


def _of_tenant(tenant: str) -> Select[Any]:
    return select(table).where(table.c.tenant_id == tenant_key(tenant))


def _locked(conn: Connection, task_id: str) -> Task | None:
    key = row_key(task_id)
    if key is None:
        return None
    # SQLite leaves FOR UPDATE out: its write transaction is a lock already
    row = conn.execute(select(table).where(table.c.id == key).with_for_update()).first()
    return _task(row) if row is not None else None


def _save(
    conn: Connection, task: Task, *, plugins: tuple[TaskEntry, ...], completed_plugins: int
) -> Task:
    task = replace(
        task,
        plugins=plugins,
        completed_plugins=completed_plugins,
        status=_status(plugins),
        updated_at=SYSTEM_CLOCK.now(),
    )
    conn.execute(update(table).where(table.c.id == task.id).values(**_values(task)))
    return task


def _values(task: Task) -> dict[str, Any]:
    """Every column but tenant_id and created_at, which never change."""
    return {
        "id": task.id,
        "updated_at": task.updated_at,
        "status": task.status,
        "total_plugins": task.total_plugins,
        "completed_plugins": task.completed_plugins,
        "plugins": msgspec.json.encode([_entry_json(one) for one in task.plugins]).decode(),
    }


def _entry_json(entry: TaskEntry) -> dict[str, Any]:
    return {
        "plugin_unique_identifier": entry.identifier,
        "labels": dict(entry.labels),
        "icon": entry.icon,
        "icon_dark": entry.icon_dark,
        "plugin_id": entry.plugin_id,
        "status": entry.status,
        "message": entry.message,
        "source": entry.source,
    }


def _entries(text: str | None) -> tuple[TaskEntry, ...]:
    try:
        found = msgspec.json.decode(text or "[]")
    except msgspec.DecodeError:
        found = []  # one broken row must not fail a list (D-13)
    return tuple(_entry(one) for one in found or [] if isinstance(one, dict))


def _entry(data: Mapping[str, Any]) -> TaskEntry:
    return TaskEntry(
        identifier=str(data.get("plugin_unique_identifier") or ""),
        plugin_id=str(data.get("plugin_id") or ""),
        status=str(data.get("status") or PENDING),
        message=str(data.get("message") or ""),
        source=str(data.get("source") or ""),
        labels=data.get("labels") or {},
        icon=str(data.get("icon") or ""),
        icon_dark=str(data.get("icon_dark") or ""),
    )


def _task(row: Row[Any]) -> Task:
    return Task(
        id=row.id,
        tenant=row.tenant_id,
        status=row.status,
        total_plugins=row.total_plugins,
        completed_plugins=row.completed_plugins,
        plugins=_entries(row.plugins),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
