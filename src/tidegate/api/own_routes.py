"""Routes of the api itself: health, metrics, the fingerprint, the live socket."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, final

import msgspec

from tidegate import __version__
from tidegate.api.application import HEALTH_PATH, Load
from tidegate.api.host_routes import host_routes
from tidegate.api.live import LiveDoor
from tidegate.calls import COUNTERS, Calls
from tidegate.deadline import Deadline
from tidegate.doors.envelope import success
from tidegate.doors.routes import JSON_TYPE, Auth, Kind, Request, Response, Route
from tidegate.errors import CallFailed
from tidegate.ids import plugin_id_of
from tidegate.runtime.fingerprint import fingerprint
from tidegate.settings import Settings
from tidegate.telemetry import metrics
from tidegate.telemetry.logs import get_log
from tidegate.telemetry.sharing import Sharing
from tidegate.telemetry.snapshots import FOLDER

log = get_log("api")

#: How long the host may take to say how it is before the answer goes out without it.
_HOST_SECONDS: Final = 1.0
_LOCAL: Final = "local"
_STATUS: Final = {"up": 1.0, "starting": 0.5}


def own_routes(
    settings: Settings, calls: Calls, load: Load, live: LiveDoor, sharing: Sharing
) -> list[Route]:
    """All rows of this module. Called once per process."""
    own = _OwnRoutes(settings, calls, load, sharing)
    # Health comes without a key and in the reference's shape: compose files and dashboards read
    # it. The pool figures mean nothing here, but must be there.
    routes = [
        Route(
            "GET", HEALTH_PATH, own.show_health, "Alive, and how busy.", Auth.NONE, kind=Kind.RAW
        ),
        Route("GET", "/debug/runtime", own.show_runtime, "Fingerprints of api and host."),
        *host_routes(calls, settings.tidegate_start_limit),
        Route(
            "GET",
            "/plugin/{tenant_id}/live",
            live.upgrade,
            "Many calls over one WebSocket.",
            kind=Kind.SOCKET,
        ),
    ]
    if settings.prometheus_enabled:
        shown = "Metrics for Prometheus."
        routes.append(Route("GET", "/metrics/", own.show_metrics, shown, Auth.NONE, kind=Kind.RAW))
    return routes


@final
class _OwnRoutes:
    def __init__(self, settings: Settings, calls: Calls, load: Load, sharing: Sharing) -> None:
        self._settings = settings
        self._calls = calls
        self._load = load
        self._sharing = sharing

    def show_health(self, request: Request) -> Response:
        total = self._settings.routine_pool_size
        busy = min(total, self._load.requests)
        shown = {
            "status": "ok",
            "pool_status": {"free": total - busy, "busy": busy, "total": total},
            "version": __version__,
            "build_time": "",
            "platform": self._settings.platform,
            "active_requests": self._load.requests,
            "active_dispatch_requests": self._load.dispatching,
        }
        return Response(200, msgspec.json.encode(shown), JSON_TYPE)

    def show_runtime(self, request: Request) -> Response:
        return success({"api": fingerprint("api"), "host": self._ask("runtime")})

    def show_metrics(self, request: Request) -> Response:
        # The host first, which is waited for: what is added up after it is as of now.
        host = list(self._host_readings())
        return Response(200, self._sharing.show(host), metrics.CONTENT_TYPE)

    def _host_readings(self) -> Iterator[metrics.Reading]:
        figures = self._ask("figures")
        yield metrics.HOST_UP, (), float(figures is not None)
        if figures is not None:
            yield from host_readings(figures)

    def _ask(self, op: str) -> dict[str, Any] | None:
        """One control call to the host; None when it does not answer in time."""
        try:
            for answer in self._calls.host(op, {}, Deadline.after(_HOST_SECONDS, "api")):
                return answer
        except CallFailed as error:
            log.debug("host did not answer", op=op, error=str(error))
        return None


def sharing_for(settings: Settings, calls: Calls) -> Sharing:
    """This api process's part in the metrics of all, with what ``calls`` counts by itself."""
    return Sharing(settings.home.run / FOLDER, "api", partial(_call_readings, calls))


def _call_readings(calls: Calls) -> Iterator[metrics.Reading]:
    yield metrics.STREAMS_OPENED, (), COUNTERS.opened
    yield metrics.STREAMS_CLOSED, (), COUNTERS.closed
    yield metrics.CHUNKS_DROPPED, (), COUNTERS.dropped
    yield metrics.SPOOLED_BYTES, (), COUNTERS.spooled_bytes
    yield metrics.SLOW_CONSUMERS, (), COUNTERS.slow
    yield metrics.FRAMES_LATE, (), calls.late_frames


def host_readings(figures: dict[str, Any]) -> Iterator[metrics.Reading]:
    """What the host's figures say: its totals by name, and how its plugins are."""
    for name, value in figures.items():
        if isinstance(value, int | float):
            yield metrics.HOST_FIGURE, (name,), value
    yield metrics.ACTIVE_PLUGINS, (_LOCAL,), figures.get("up", 0)
    status: dict[str, float] = {}
    for identifier, one in figures.get("plugins", {}).items():
        plugin_id = plugin_id_of(identifier)  # of two versions, the one that is better off
        known = status.get(plugin_id, 0.0)
        # Two versions at once, in an upgrade, would be one time series with two values.
        status[plugin_id] = max(known, _STATUS.get(one.get("phase", ""), 0.0))
    for plugin_id, value in status.items():
        yield metrics.RUNTIME_STATUS, (plugin_id, _LOCAL), value
    for counted in figures.get("backcalls", ()):
        if "count" in counted:
            yield metrics.BACKCALLS, (counted["type"], counted["outcome"]), counted["count"]
        else:
            yield metrics.BACKCALL_SECONDS, (counted["type"],), counted["seconds"]
    for runtime, plugins in figures.get("elsewhere", {}).items():
        yield metrics.ACTIVE_PLUGINS, (runtime,), len(plugins)
        yield metrics.HOST_FIGURE, (f"{runtime}_sessions",), sum(plugins.values())
        for plugin_id in plugins:
            yield metrics.RUNTIME_STATUS, (plugin_id, runtime), 1.0
