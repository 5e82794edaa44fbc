"""Installing a version for one tenant, or moving the tenant to it from another one.

| step | what happens | killed there |
|---|---|---|
| resolving | a retirement of the same version is taken back | begins again |
| building, probing | the host works; the task shows progress | begins again, keeps what is built |
| marker | the package is copied to the installed ones | the same |
| installed | one transaction: tenant's rows, entry of the task, end of the job | all is done |
| failed | one transaction: the entry says why, an unused version is retired | all is done |

An upgrade differs in its last transaction only: the new version was built and probed beside the
old one, the row is switched, and the old version is retired when nobody uses it any more.
"""

from __future__ import annotations

import time
from typing import Final, final

import msgspec
from sqlalchemy import Connection

from tidegate.clock import SYSTEM_CLOCK
from tidegate.errors import InstallCancelled, InstallFailed, StorageUnavailable, TidegateError
from tidegate.ids import plugin_id_of
from tidegate.installs import payloads
from tidegate.installs.builds import Build, Builds, reason_of
from tidegate.installs.host_control import HostControl, announce
from tidegate.installs.payloads import InstallPayload
from tidegate.installs.run import Run
from tidegate.installs.shelf import Shelf
from tidegate.installs.states import InstallState, path_to
from tidegate.installs.uploads import Uploads
from tidegate.storage import generation, install_tasks, installations, job_rows
from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log

log = get_log("installs")

_S = InstallState
_TICK: Final = 0.5
"""Seconds between two looks at the build, at the task and at the lease."""

_HEARTBEAT: Final = "installing heartbeat, waiting for plugin to be ready..."


@final
class InstallJob:
    """Carries one claimed job through its states. Used once, by one greenlet."""

    def __init__(
        self,
        run: Run,
        host: HostControl,
        builds: Builds,
        shelf: Shelf,
        uploads: Uploads,
        *,
        runtime_type: str = "local",
    ) -> None:
        """``runtime_type``: what the installation's row says it runs in."""
        self._run = run
        self._host = host
        self._builds = builds
        self._shelf = shelf
        self._uploads = uploads
        self._runtime_type = runtime_type
        self._payload = msgspec.json.decode(run.job.payload, type=InstallPayload)
        self._shown = ""
        self._declaration = ""
        self.retired: job_rows.JobRow | None = None
        """A job that this one left behind: the runner sends it after the end."""

    def carry_out(self) -> None:
        """To the end: installed, failed or cancelled.

        JobTaken and JobGivenBack pass through: then somebody else goes on. So does
        StorageUnavailable: the job is taken up again when its lease is over.
        """
        try:
            self._install()
        except InstallCancelled as error:
            self._end_as_failed(error.message, cancelled=True)
        except InstallFailed as error:
            self._end_as_failed(error.message)

    def give_up(self, error: Exception) -> None:
        """End as failed for a reason that nobody foresaw. Called by the runner."""
        text = reason_of(error) if isinstance(error, TidegateError) else str(error)
        self._end_as_failed(f"internal error: {type(error).__name__}: {text}")

    # ------------------------------------------------------------------ steps

    def _install(self) -> None:
        # Looked at first: of two jobs for one plugin the second must not build what nobody will
        # use.
        if self._has_it_already():
            with self._run.last_step(_S.INSTALLED, "the tenant has it already") as conn:
                self._succeed(conn, "installed")
            self._count("success")
            return
        # Before anything is built: a retirement that runs meanwhile would remove it under our
        # hands.
        self._begin()
        self._declare()
        # No transaction is open from here to the marker: a build takes minutes, and nothing may
        # wait inside one.
        with self._builds.join(self._payload.identifier) as build:
            while not build.wait(_TICK):
                self._follow(build)
            self._follow(build)
            build.result()
        # Whatever steps the host reported: a build that was there already skips them, and the
        # table has no arrow from resolving to the end.
        self._advance(_S.PROBING)
        self._place_marker()
        if self._payload.original:
            self._switch()
        else:
            self._finish_as_installed()

    def _has_it_already(self) -> bool:
        """A tenant has one version of a plugin: a second install of any other is a success."""
        if self._payload.original:
            return False
        with self._run.database.read() as conn:
            plugin_id = plugin_id_of(self._payload.identifier)
            return installations.find(conn, self._payload.tenant, plugin_id) is not None

    def _begin(self) -> None:
        note = "starting" if self._run.state is _S.UPLOADED else "resumed"
        while True:
            with self._run.step(_S.RESOLVING, note) as conn:
                free = _take_back_retirement(conn, self._payload.identifier)
                self._show(conn, "starting")
            if free:
                return
            # A retirement at work cannot be taken back: what it removes would be ours.
            self._run.sign_of_life()
            time.sleep(_TICK)

    def _declare(self) -> None:
        """Before the build: without a declaration there is nothing to install."""
        try:
            self._declaration = self._uploads.declared(self._payload.identifier)
        except StorageUnavailable:
            raise
        except TidegateError as error:
            raise InstallFailed(error.message) from error

    def _follow(self, build: Build) -> None:
        self._advance(build.step, build.message)
        message = build.message or _HEARTBEAT
        self._run.sign_of_life()
        # Progress is written when there is some: a tick of half a second for minutes would be
        # hundreds of writes.
        if message != self._shown:
            with self._run.database.write() as conn:
                self._show(conn, message)
        else:
            self._still_wanted()

    def _advance(self, target: InstallState, message: str = "") -> None:
        # One transaction per arrow, also where the host was faster than our looks: the log tells
        # every step, and the table refuses jumps.
        for state in path_to(self._run.state, target):
            with self._run.step(state, message) as conn:
                self._show(conn, message or self._shown)

    def _place_marker(self) -> None:
        """Before the rows, as the reference does: who looks at the shelf finds what is used."""
        try:
            self._shelf.mark_installed(self._payload.identifier)
        except StorageUnavailable:
            raise
        except TidegateError as error:
            raise InstallFailed(
                f"failed to move plugin to installed bucket: {error.message}"
            ) from error

    def _finish_as_installed(self) -> None:
        payload = self._payload
        with self._run.last_step(_S.INSTALLED) as conn:
            installations.install(
                conn,
                payload.tenant,
                payload.identifier,
                self._declaration,
                source=payload.source,
                meta=payload.meta,
                runtime_type=self._runtime_type,
            )
            self._succeed(conn, "installed")
            now = generation.current(conn)
        self._count("success")
        announce(self._host, now)

    def _switch(self) -> None:
        payload = self._payload
        # A step of its own before the switch: killed in between, the job's row says how far the
        # upgrade was.
        with self._run.step(_S.UPGRADING):
            pass
        with self._run.last_step(_S.INSTALLED) as conn:
            upgraded = installations.upgrade(
                conn,
                payload.tenant,
                payload.original,
                payload.identifier,
                self._declaration,
                source=payload.source,
                meta=payload.meta,
            )
            # Switched already is no failure: two clicks on "upgrade" are two jobs.
            if upgraded is None and not self._is_switched(conn):
                raise InstallFailed("plugin has not been installed: it was removed meanwhile")
            if upgraded is not None and upgraded.old_last_reference:
                # In the same transaction that takes the last reference: a worker that dies right
                # after it leaves a job behind, not files that nobody looks for.
                self.retired = payloads.enqueue_retire(conn, payload.original)
            self._succeed(conn, "upgraded")
            now = generation.current(conn)
        self._count("success")
        announce(self._host, now)

    def _end_as_failed(self, reason: str, *, cancelled: bool = False) -> None:
        """One transaction: the entry says why, and what was half made is retired."""
        identifier = self._payload.identifier
        log.warning("installation failed", plugin=identifier, reason=reason)
        with self._run.last_step(_S.FAILED, reason) as conn:
            if not cancelled:
                install_tasks.set_entry(
                    conn,
                    self._payload.task,
                    identifier,
                    status=install_tasks.FAILED,
                    message=reason,
                )
            # What is half made may be another tenant's whole.
            if not installations.is_installed_anywhere(conn, identifier):
                self.retired = payloads.enqueue_retire(conn, identifier, failed=True)
        if not cancelled:  # nobody's failure: who deleted the task knows how it ended
            self._count("failed")

    def _count(self, status: str) -> None:
        """After the last transaction only, so that a worker killed before it counts nothing.

        From the asking on, not from this worker's claim: earlier workers may have died on it.
        """
        plugin = plugin_id_of(self._payload.identifier)
        taken = (SYSTEM_CLOCK.now() - self._run.job.created_at).total_seconds()
        metrics.INSTALLATIONS.labels(plugin, status).inc()
        metrics.INSTALLATION_SECONDS.labels(plugin).observe(max(0.0, taken))

    # ------------------------------------------------------------------ task and rows

    def _show(self, conn: Connection, message: str) -> None:
        """Progress for whoever polls; InstallCancelled when the task was deleted."""
        shown = install_tasks.set_entry(
            conn,
            self._payload.task,
            self._payload.identifier,
            status=install_tasks.RUNNING,
            message=message,
        )
        # Whoever deletes the task cancels the installation: that is the only way that Dify has.
        if shown is None:
            raise _cancelled()
        self._shown = message

    def _still_wanted(self) -> None:
        with self._run.database.read() as conn:
            task = install_tasks.get(conn, self._payload.tenant, self._payload.task)
        if task is None or task.entry(self._payload.identifier) is None:
            raise _cancelled()

    def _succeed(self, conn: Connection, message: str) -> None:
        task = install_tasks.set_entry(
            conn,
            self._payload.task,
            self._payload.identifier,
            status=install_tasks.SUCCESS,
            message=message,
        )
        if task is None:
            raise _cancelled()

    def _is_switched(self, conn: Connection) -> bool:
        """Another upgrade of the same tenant was faster."""
        plugin_id = plugin_id_of(self._payload.identifier)
        found = installations.find(conn, self._payload.tenant, plugin_id)
        return found is not None and found.identifier == self._payload.identifier


def _take_back_retirement(conn: Connection, identifier: str) -> bool:
    """A retirement that has not begun ends here; False while one is at work."""
    waiting = job_rows.open_job(conn, payloads.RETIRE, identifier)
    if waiting is None:
        return True
    # By a claim, so that its worker finds its fence stale; with no lease, since it ends two lines
    # further on.
    claimed = job_rows.claim(conn, waiting.id, "taken back by an installation", 0)
    if claimed is None:
        return False
    return job_rows.finish(conn, claimed.id, claimed.fence, True, "installed again")


def _cancelled() -> InstallCancelled:
    return InstallCancelled("the install task was deleted")
