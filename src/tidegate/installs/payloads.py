"""What the rows of jobs say: their kinds, keys and payloads."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from tidegate.storage import job_rows
from tidegate.storage.job_rows import JobRow

INSTALL: Final = "install"
UPGRADE: Final = "upgrade"
RETIRE: Final = "retire"
"""Nobody uses a version any more: stop it, remove what was built for it."""


class InstallPayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """Install ``identifier`` for a tenant; ``original`` is the version that an upgrade leaves."""

    task: str
    tenant: str
    identifier: str
    source: str
    meta: dict[str, Any] = {}
    original: str = ""


class RetirePayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """Retire ``identifier``; ``failed``: it never was installed, and may be tried again."""

    identifier: str
    failed: bool = False


def enqueue_install(conn: Connection, payload: InstallPayload) -> JobRow:
    """The job for one entry of a task. Called in the transaction that makes the task."""
    kind = UPGRADE if payload.original else INSTALL
    # A key per task: each tenant's task ends by itself, while `builds` makes their work one.
    key = _prefix(payload.identifier) + payload.task
    return job_rows.enqueue(conn, kind, key, _text(payload))


def enqueue_retire(conn: Connection, identifier: str, *, failed: bool = False) -> JobRow:
    """The job that cleans up; called in the transaction that lets the last reference go."""
    return job_rows.enqueue(conn, RETIRE, identifier, _text(RetirePayload(identifier, failed)))


def open_retirement(conn: Connection, identifier: str) -> JobRow | None:
    """The retirement of a version that is still going on."""
    return job_rows.open_job(conn, RETIRE, identifier)


def last_retirement(conn: Connection, identifier: str) -> JobRow | None:
    """The retirement of a version that ended last, within the memory of jobs."""
    return job_rows.last_finished(conn, RETIRE, identifier)


def was_installed(retirement: JobRow) -> bool:
    """Whether the version was in use before, and not only tried."""
    return not msgspec.json.decode(retirement.payload, type=RetirePayload).failed


def open_installs(conn: Connection, identifier: str) -> list[JobRow]:
    """Open jobs that are about to install ``identifier`` for somebody."""
    prefix = _prefix(identifier)
    return [job for kind in (INSTALL, UPGRADE) for job in job_rows.open_below(conn, kind, prefix)]


def install_job_of(conn: Connection, task: str, identifier: str) -> JobRow | None:
    """The open job behind one entry of a task."""
    key = _prefix(identifier) + task
    return job_rows.open_job(conn, INSTALL, key) or job_rows.open_job(conn, UPGRADE, key)


def _prefix(identifier: str) -> str:
    # A blank cannot stand in an identifier, so no identifier is the beginning of another one's
    # keys.
    return identifier + " "


def _text(payload: msgspec.Struct) -> str:
    return msgspec.json.encode(payload).decode()
