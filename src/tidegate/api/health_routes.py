"""Health in three depths, and of one plugin; `/health/check` stays as the reference has it.

| path | key | 200 means | else |
|------|-----|-----------|------|
| /health/live | no | this process answers; also while it drains | no answer: restart it |
| /health/ready | no | database and host answer, nothing drains | 503: send no traffic |
| /health/deep | yes | the same, and blob store and worker as well | 503 with the reason |
| /health/plugins/{author}/{name} | yes | that plugin is up, or would start | 503, 404 |
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any, Final, final

import msgspec

from tidegate import __version__
from tidegate.api.application import LIVE_PATH
from tidegate.calls import Calls
from tidegate.clock import SYSTEM_CLOCK
from tidegate.deadline import Deadline
from tidegate.doors.routes import JSON_TYPE, Auth, Kind, Request, Response, Route
from tidegate.doors.services import Services
from tidegate.errors import NotFound, TidegateError
from tidegate.ids import plugin_id_of
from tidegate.runtime.drain import Drain
from tidegate.storage import Database, generation, job_rows
from tidegate.storage.blobs import BlobStore

_HOST_SECONDS: Final = 1.0
_KEEP: Final = 1.0
"""Seconds for which an answer without a key is given again: nobody makes work by asking."""
_WORKER_LATE: Final = timedelta(seconds=60)
"""A job that has waited for longer says that no worker is at work."""
_ILL: Final = ("quarantined", "failed")
_OK: Final = "ok"


def health_routes(services: Services, drain: Drain) -> list[Route]:
    """All rows of this module. Called once per process."""
    own = _Health(services.database, services.blobs, services.calls, drain)
    alive, ready = "This process answers.", "It can serve calls now."
    return [
        Route("GET", LIVE_PATH, own.show_live, alive, Auth.NONE, kind=Kind.RAW),
        Route("GET", "/health/ready", own.show_ready, ready, Auth.NONE, kind=Kind.RAW),
        Route(
            "GET",
            "/health/deep",
            own.show_deep,
            "Every part that a call or an installation needs, and every plugin.",
            kind=Kind.RAW,
        ),
        Route(
            "GET",
            "/health/plugins/{author}/{name}",
            own.show_plugin,
            "How one plugin is: 503 while it is quarantined.",
            kind=Kind.RAW,
        ),
    ]


@final
class _Health:
    def __init__(self, database: Database, blobs: BlobStore, calls: Calls, drain: Drain) -> None:
        self._drain = drain
        self._database = database
        self._blobs = blobs
        self._calls = calls
        self._ready: tuple[float, Response] = (0.0, _answer({}))

    def show_live(self, request: Request) -> Response:
        return _answer({})

    def show_ready(self, request: Request) -> Response:
        # Before what is remembered: a balancer must hear of a drain at once, not a second later.
        if self._drain.draining:
            return _answer({"process": "it stops, and takes no new requests"})
        ends_at, known = self._ready
        if monotonic() >= ends_at:
            known = _answer({"database": self._database_is(), "host": self._link_is()})
            self._ready = (monotonic() + _KEEP, known)
        return known

    def show_deep(self, request: Request) -> Response:
        plugins: list[dict[str, Any]] = []
        checks = {
            "database": self._database_is(),
            # Whether it is there does not matter: the store had to answer.
            "blobs": _outcome(lambda: self._blobs.exists("health")),
            "host": _outcome(lambda: plugins.extend(self._plugins())),
            "jobs": self._jobs_are(),
        }
        return _answer(checks, plugins=[_shown(one) for one in plugins], version=__version__)

    def show_plugin(self, request: Request) -> Response:
        wanted = f"{request.params['author']}/{request.params['name']}"
        plugins: list[dict[str, Any]] = []
        host = _outcome(lambda: plugins.extend(self._plugins()))
        if host != _OK:
            return _answer({"host": host})
        found = [one for one in plugins if plugin_id_of(one["identifier"]) == wanted]
        if not found:
            raise NotFound(f"the host knows no plugin {wanted}: nobody called it since it started")
        # Of two versions during an upgrade one that is well is enough: calls go to it.
        ill = all(one.get("phase") in _ILL for one in found)
        said = (found[0].get("last_error") or "quarantined") if ill else _OK
        return _answer({"plugin": said}, plugins=found)

    def _plugins(self) -> list[dict[str, Any]]:
        return list(self._calls.host("status", {}, Deadline.after(_HOST_SECONDS, "api")))

    def _database_is(self) -> str:
        def read() -> None:
            with self._database.read() as conn:
                generation.current(conn)

        return _outcome(read)

    def _link_is(self) -> str:
        return _OK if self._calls.connected else "no host is connected"

    def _jobs_are(self) -> str:
        def read() -> int:
            with self._database.read() as conn:
                return len(job_rows.abandoned(conn, SYSTEM_CLOCK.now() - _WORKER_LATE, 100))

        waiting: list[int] = []
        said = _outcome(lambda: waiting.append(read()))
        if said == _OK and any(waiting):
            return f"{waiting[0]} jobs that no worker takes"
        return said


def _outcome(check: Callable[[], Any]) -> str:
    try:
        check()
    except TidegateError as error:
        return error.message
    return _OK


def _shown(plugin: dict[str, Any]) -> dict[str, Any]:
    kept = ("identifier", "phase", "deaths", "quarantined_until", "last_error")
    return {name: plugin.get(name) for name in kept}


def _answer(checks: dict[str, str], **more: Any) -> Response:
    well = all(one == _OK for one in checks.values())
    body = {"status": _OK if well else "unavailable", "checks": checks, **more}
    return Response(200 if well else 503, msgspec.json.encode(body), JSON_TYPE)
