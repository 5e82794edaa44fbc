"""What doors ask for: upload, install, upgrade, uninstall. Answers at once, jobs do the work.

Each of them is one transaction: the rows that answer the caller and the rows of the jobs that
follow stand or fall together. The jobs are sent after it; if that fails, the schedule sends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import msgspec
from gevent.pool import Group
from sqlalchemy import Connection

from tidegate.errors import BadRequest, NotFound, PackageUnknown
from tidegate.ids import PluginIdentifier, plugin_id_of
from tidegate.installs import payloads
from tidegate.installs.bundled import Bundled, take_bundle
from tidegate.installs.catalogue import Catalogue
from tidegate.installs.host_control import HostControl, announce
from tidegate.installs.payloads import InstallPayload
from tidegate.installs.runner import send_job
from tidegate.installs.shelf import Shelf
from tidegate.installs.uploads import Uploaded, Uploads
from tidegate.jobs import JobSender
from tidegate.settings import Settings
from tidegate.storage import Database, declarations, generation, install_tasks, installations
from tidegate.storage.blobs import BlobStore
from tidegate.storage.install_tasks import Task, TaskEntry
from tidegate.storage.job_rows import JobRow
from tidegate.telemetry.logs import get_log

log = get_log("installs")

_RECENT = 64
"""Newest tasks of a tenant that are looked at for the same request."""


@final
@dataclass(frozen=True, slots=True)
class InstallAnswer:
    """``task_id`` is empty when nothing had to be done."""

    all_installed: bool
    task_id: str


@final
class Installer:
    """Changes who has which plugin. One per api process.

    ``catalogue`` is told of changes before the caller gets its answer; ``host`` afterwards, so
    that it tells the other processes.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        sender: JobSender,
        *,
        catalogue: Catalogue | None = None,
        host: HostControl | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._sender = sender
        self._catalogue = catalogue
        self._host = host
        self._announcements = Group()
        self._uploads = Uploads(settings, database, Shelf(settings, blobs), self.changed)

    def upload(self, tenant: str, data: bytes, verify: bool) -> Uploaded:
        """Take a package (01 section 3.5); ``verify``: the caller wants it signed.

        PackageRejected says what is broken. Packages are shared by all tenants.
        """
        uploaded = self._uploads.take(data, must_be_signed=verify)
        log.info("upload answered", tenant=tenant, plugin=str(uploaded.identifier))
        return uploaded

    def upload_bundle(self, tenant: str, data: bytes, verify: bool) -> list[Bundled]:
        """Take a bundle (01 section 3.6): all of its packages, or none."""
        taken = take_bundle(self._settings, self._uploads, data, must_be_signed=verify)
        log.info("bundle answered", tenant=tenant, plugins=len(taken))
        return taken

    def install(
        self,
        tenant: str,
        identifiers: Sequence[str],
        source: str,
        metas: Sequence[Mapping[str, Any] | None],
    ) -> InstallAnswer:
        """Install uploaded versions for a tenant (01 section 3.7).

        The same request while the first one runs is the same task. PackageUnknown when a version
        was never uploaded; InvalidIdentifier, BadRequest.
        """
        if len(metas) != len(identifiers):
            raise BadRequest("metas must have as many entries as plugin_unique_identifiers")
        wanted = {
            str(PluginIdentifier.parse(text)): dict(meta or {})
            for text, meta in zip(identifiers, metas, strict=True)
        }
        # Before the lock: a request for what is there already ends here.
        missing = self._missing(tenant, wanted)
        if not missing:
            return InstallAnswer(True, "")
        # Outside the transaction: a declaration may have to be read from the store and decoded.
        for identifier in missing:
            self._uploads.declared(identifier)
        with self._database.write() as conn:
            # It looks for what is missing once more: in between somebody may have installed it.
            task, jobs = self._begin_install(conn, tenant, wanted, source)
        self._send(jobs)
        return InstallAnswer(False, task.id)

    def upgrade(
        self,
        tenant: str,
        original: str,
        new: str,
        source: str,
        meta: Mapping[str, Any] | None = None,
    ) -> InstallAnswer:
        """Move a tenant to another version, up or down (01 section 3.8).

        At once when somebody uses the new one already, else by a task. NotFound when the tenant
        has not the original, or the new one was never uploaded; BadRequest.
        """
        _check_pair(original, new)
        self._require_installed(tenant, original)
        try:
            declaration = self._uploads.declared(new)
        except PackageUnknown as error:
            raise NotFound(error.message) from error
        meta = dict(meta or {})
        with self._database.write() as conn:
            # Built and probed for somebody: then this host has it, and the tenant's row is all
            # that changes.
            if not installations.is_installed_anywhere(conn, new):
                task, job = _begin_upgrade(conn, tenant, original, new, source, meta)
                jobs = [job]
            else:
                jobs, task = _switch(conn, tenant, original, new, declaration, source, meta), None
            now = generation.current(conn)
        self.changed(now)
        self._send(jobs)
        return InstallAnswer(task is None, task.id if task else "")

    def uninstall(self, tenant: str, installation_id: str) -> None:
        """Uninstall for a tenant (01 section 3.12); nothing to do when there is no such row.

        Answers at once: a version that nobody uses any more is stopped by a job (D-16).
        """
        jobs = []
        with self._database.write() as conn:
            gone = installations.uninstall(conn, tenant, installation_id)
            if gone is not None and gone.last_reference:
                jobs.append(payloads.enqueue_retire(conn, gone.identifier))
            now = generation.current(conn)
        if gone is not None:
            log.info("uninstalled", tenant=tenant, plugin=gone.identifier)
            self.changed(now)
        self._send(jobs)

    def close(self) -> None:
        """Drop announcements that are still on their way: everybody looks by himself too."""
        self._announcements.kill()

    # ------------------------------------------------------------------ parts

    def _missing(self, tenant: str, wanted: Mapping[str, Any]) -> list[str]:
        """Those of which the tenant has no version at all (D-10: any version counts)."""
        with self._database.read() as conn:
            return _missing(conn, tenant, wanted)

    def _begin_install(
        self, conn: Connection, tenant: str, wanted: Mapping[str, dict[str, Any]], source: str
    ) -> tuple[Task, list[JobRow]]:
        install_tasks.lock_requests(conn, tenant)
        # Under the lock, or two clicks at once would both find none.
        running = _same_request(conn, tenant, list(wanted))
        if running is not None:
            return running, []
        missing = _missing(conn, tenant, wanted)
        task = install_tasks.create(conn, tenant, _entries(conn, wanted, missing, source))
        jobs = [
            payloads.enqueue_install(
                conn, InstallPayload(task.id, tenant, identifier, source, wanted[identifier])
            )
            for identifier in missing
        ]
        return task, jobs

    def _require_installed(self, tenant: str, identifier: str) -> None:
        with self._database.read() as conn:
            found = installations.find(conn, tenant, plugin_id_of(identifier))
        if found is None or found.identifier != identifier:
            raise NotFound("plugin not installed: the tenant has not the original version")

    def changed(self, now: int) -> None:
        """The generation is ``now``: tell this process at once and the others behind its back.

        Also for doors that change rows themselves (endpoints).
        """
        if self._catalogue is not None:
            # Before the answer: whoever installs and calls at once, on this process, finds it.
            self._catalogue.invalidate(now)
        if self._host is not None:
            # Behind the answer: the others look by themselves within a second, so nobody waits for
            # a host.
            self._announcements.spawn(announce, self._host, now)

    def _send(self, jobs: list[JobRow]) -> None:
        for job in jobs:
            send_job(self._sender, job)


def _missing(conn: Connection, tenant: str, wanted: Mapping[str, Any]) -> list[str]:
    plugins = {identifier: plugin_id_of(identifier) for identifier in wanted}
    rows = installations.find_many(conn, tenant, set(plugins.values()))
    have = {row.plugin_id for row in rows}
    return [identifier for identifier, plugin in plugins.items() if plugin not in have]


def _same_request(conn: Connection, tenant: str, identifiers: list[str]) -> Task | None:
    """A running task of the tenant for exactly these: a second click is the first one's."""
    tasks, _ = install_tasks.page(conn, tenant, 0, _RECENT)
    for task in tasks:
        # In their order: Dify shows the task's entries in the order of the request.
        same = [entry.identifier for entry in task.plugins] == identifiers
        if same and task.status == install_tasks.RUNNING:
            return task
    return None


def _entries(
    conn: Connection, wanted: Mapping[str, Any], missing: Sequence[str], source: str
) -> list[TaskEntry]:
    texts = declarations.get_many(conn, wanted)
    return [
        _entry(
            identifier,
            texts[identifier].text if identifier in texts else "{}",
            source,
            installed=identifier not in missing,
        )
        for identifier in wanted
    ]


def _entry(identifier: str, declaration: str, source: str, *, installed: bool) -> TaskEntry:
    shown = msgspec.json.decode(declaration)
    label = shown.get("label")
    return TaskEntry(
        identifier=identifier,
        status=install_tasks.SUCCESS if installed else install_tasks.PENDING,
        message="installed" if installed else "",
        source=source,
        labels=label if isinstance(label, dict) else {},
        icon=str(shown.get("icon") or ""),
        icon_dark=str(shown.get("icon_dark") or ""),
    )


def _check_pair(original: str, new: str) -> None:
    before, after = PluginIdentifier.parse(original), PluginIdentifier.parse(new)
    if before == after:
        raise BadRequest("original and new plugin unique identifier are the same")
    if before.plugin_id != after.plugin_id:
        raise BadRequest(
            f"original and new are not the same plugin: {before.plugin_id}, {after.plugin_id}"
        )


def _begin_upgrade(
    conn: Connection, tenant: str, original: str, new: str, source: str, meta: dict[str, Any]
) -> tuple[Task, JobRow]:
    entry = TaskEntry(identifier=new, source=source, labels={"en_US": ""})
    task = install_tasks.create(conn, tenant, [entry])
    payload = InstallPayload(task.id, tenant, new, source, meta, original=original)
    return task, payloads.enqueue_install(conn, payload)


def _switch(
    conn: Connection,
    tenant: str,
    original: str,
    new: str,
    declaration: str,
    source: str,
    meta: dict[str, Any],
) -> list[JobRow]:
    upgraded = installations.upgrade(
        conn, tenant, original, new, declaration, source=source, meta=meta
    )
    if upgraded is None:
        raise NotFound("plugin not installed: the tenant has not the original version")
    if not upgraded.old_last_reference:
        return []
    return [payloads.enqueue_retire(conn, original)]
