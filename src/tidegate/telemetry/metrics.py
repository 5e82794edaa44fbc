"""Every metric, once: names of the reference where it has one (spec/http/07 section 7.1).

:data:`COUNTED` are counted by the process that they happen in (:mod:`tidegate.telemetry.counting`)
and shown as the sum over processes (:mod:`tidegate.telemetry.sharing`); :data:`FIGURES` are kept
by other rooms, here or in the host, and read when somebody asks for /metrics/.
``docs/reference/metrics.md`` is generated from this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Final, final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from tidegate.telemetry.counting import CounterFamily, GaugeFamily, HistogramFamily
from tidegate.telemetry.snapshots import Snapshot, Totals

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Calls of plugins take from milliseconds to their limit of ten minutes.
CALL_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# Installing takes seconds with a warm cache, and up to the tools' limit of ten minutes.
INSTALL_SECONDS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900)

HTTP_REQUESTS: Final = CounterFamily(
    "plugin_http_requests",
    "HTTP requests answered, by route pattern.",
    ("method", "endpoint", "status"),
)
HTTP_SECONDS: Final = HistogramFamily(
    "plugin_http_request_duration_seconds",
    "Seconds from a request's head to the end of its answer, streams included.",
    ("method", "endpoint"),
    CALL_SECONDS,
)
INVOCATIONS: Final = CounterFamily(
    "plugin_invocations",
    "Calls of plugins that ended, by how: success, error, timeout or client_disconnect.",
    ("plugin_id", "plugin_type", "runtime_type", "operation", "status"),
)
INVOCATION_SECONDS: Final = HistogramFamily(
    "plugin_invocation_duration_seconds",
    "Seconds from opening a call of a plugin to its end.",
    ("plugin_id", "plugin_type", "runtime_type", "operation"),
    CALL_SECONDS,
)
INVOCATIONS_ACTIVE: Final = GaugeFamily(
    "plugin_invocations_active",
    "Calls of plugins that are running.",
    ("plugin_id", "plugin_type", "runtime_type"),
)
INSTALLATIONS: Final = CounterFamily(
    "plugin_installations",
    "Installations that ended, by status: success or failed.",
    ("plugin_id", "status"),
)
INSTALLATION_SECONDS: Final = HistogramFamily(
    "plugin_installation_duration_seconds",
    "Seconds from starting an installation to its end.",
    ("plugin_id",),
    INSTALL_SECONDS,
)
OUTPUT_SCHEMA_VIOLATIONS: Final = CounterFamily(
    "tidegate_output_schema_violations",
    "Calls whose variables did not fit the tool's output_schema.",
    ("plugin_id", "mode"),
)
LIVE_CONNECTIONS: Final = GaugeFamily(
    "tidegate_live_connections", "Open WebSocket connections of /plugin/{tenant_id}/live."
)
REQUESTS_REFUSED: Final = CounterFamily(
    "tidegate_requests_refused", "Requests refused before a handler saw them.", ("reason",)
)
COUNTED: Final = (
    HTTP_REQUESTS,
    HTTP_SECONDS,
    INVOCATIONS,
    INVOCATION_SECONDS,
    INVOCATIONS_ACTIVE,
    INSTALLATIONS,
    INSTALLATION_SECONDS,
    OUTPUT_SCHEMA_VIOLATIONS,
    LIVE_CONNECTIONS,
    REQUESTS_REFUSED,
)


@final
class _Operation:
    """The children of one (plugin, type, action): looked up once, not per call."""

    __slots__ = ("active", "ended", "seconds")

    def __init__(self, plugin_id: str, plugin_type: str, operation: str, runtime: str) -> None:
        self.active = INVOCATIONS_ACTIVE.labels(plugin_id, plugin_type, runtime)
        self.seconds = INVOCATION_SECONDS.labels(plugin_id, plugin_type, runtime, operation)
        self.ended = {
            status: INVOCATIONS.labels(plugin_id, plugin_type, runtime, operation, status)
            for status in ("success", "error", "timeout", "client_disconnect")
        }


# Bounded: actions and plugins are named by callers. One that was dropped is looked up again, its
# numbers stay in their families.
_operation = lru_cache(maxsize=4096)(_Operation)


@final
class Invocation:
    """One running call: counted as active until :meth:`finished`, which counts once (D-07)."""

    __slots__ = ("_began", "_operation", "_over")

    def __init__(
        self, plugin_id: str, plugin_type: str, operation: str, runtime: str = "local"
    ) -> None:
        self._operation = _operation(plugin_id, plugin_type, operation, runtime)
        self._operation.active.inc()
        self._began = monotonic()
        self._over = False

    def finished(self, status: str) -> None:
        """The call ended as ``status``. Idempotent: the first one counts."""
        # A call that is cancelled while it fails ends twice.
        if self._over:
            return
        self._over = True
        self._operation.active.dec()
        self._operation.seconds.observe(monotonic() - self._began)
        self._operation.ended[status].inc()


@final
@dataclass(frozen=True, slots=True)
class Figure:
    """A metric that is counted elsewhere (a room's own counters, another role) and only shown."""

    name: str
    text: str
    counter: bool = False
    labels: tuple[str, ...] = ()


STREAMS_OPENED: Final = Figure("tidegate_streams_opened", "Streams of calls opened.", counter=True)
STREAMS_CLOSED: Final = Figure("tidegate_streams_closed", "Streams of calls closed.", counter=True)
CHUNKS_DROPPED: Final = Figure(
    "tidegate_chunks_dropped", "Bodies that came after their call had ended.", counter=True
)
FRAMES_LATE: Final = Figure(
    "tidegate_link_late_frames", "Frames of the link whose call was over.", counter=True
)
SPOOLED_BYTES: Final = Figure(
    "tidegate_spooled_bytes", "Bytes of slow callers that went to disk.", counter=True
)
SLOW_CONSUMERS: Final = Figure(
    "tidegate_slow_consumers",
    "Calls that ended because their caller read too slowly.",
    counter=True,
)
ACTIVE_PLUGINS: Final = Figure(
    "active_plugins_total", "Plugins with a running process.", labels=("runtime_type",)
)
RUNTIME_STATUS: Final = Figure(
    "plugin_runtime_status",
    "1 ready, 0.5 starting, 0 stopped or failed.",
    labels=("plugin_id", "runtime_type"),
)
BACKCALLS: Final = Figure(
    "tidegate_backcalls",
    "Back-calls of plugins by how they ended: success, error, abandoned or refused.",
    counter=True,
    labels=("type", "outcome"),
)
BACKCALL_SECONDS: Final = Figure(
    "tidegate_backcall_seconds",
    "Seconds that admitted back-calls took, together.",
    counter=True,
    labels=("type",),
)
HOST_FIGURE: Final = Figure(
    "tidegate_host", "Figures of the host process by name.", labels=("figure",)
)
HOST_UP: Final = Figure("tidegate_host_up", "1 when the host answered within the time-out, else 0.")
FIGURES: Final = (
    STREAMS_OPENED,
    STREAMS_CLOSED,
    CHUNKS_DROPPED,
    FRAMES_LATE,
    SPOOLED_BYTES,
    SLOW_CONSUMERS,
    ACTIVE_PLUGINS,
    RUNTIME_STATUS,
    BACKCALLS,
    BACKCALL_SECONDS,
    HOST_FIGURE,
    HOST_UP,
)

#: (figure, values of its labels, value)
type Reading = tuple[Figure, tuple[str, ...], float]


def snapshot(readings: Iterable[Reading] = ()) -> Snapshot:
    """What this process counted until now, with ``readings`` of counters that its rooms keep."""
    taken = Snapshot()
    for family in COUNTED:
        kept = taken.current if family.kind == "gauge" else taken.grown
        if samples := family.samples():
            kept[family.name] = samples
    for figure, values, value in readings:
        taken.grown.setdefault(figure.name, []).append((values, [value]))
    return taken


def render(readings: Iterable[Reading] = (), totals: Totals | None = None) -> bytes:
    """The text that /metrics/ serves: what was added up (this process's alone without ``totals``),
    then what was read elsewhere.
    """
    # A process without siblings, or a test: its own counts are the sum.
    if totals is None:
        totals = Totals()
        own = snapshot()
        totals.add(own.grown)
        totals.add(own.current)
    # New for each answer: the library's own registry adds series of the Python process.
    registry = CollectorRegistry()
    registry.register(_Families([*_added_up(totals), *_read(_with_figures(totals, readings))]))
    return generate_latest(registry)


def _added_up(totals: Totals) -> Iterator[Metric]:
    for family in COUNTED:
        yield family.shown(totals.values.get(family.name, {}))


def _with_figures(totals: Totals, readings: Iterable[Reading]) -> Iterator[Reading]:
    for figure in FIGURES:
        for values, numbers in totals.values.get(figure.name, {}).items():
            yield figure, values, numbers[0]
    # Those read elsewhere last: figures of the host are nobody's to add up.
    yield from readings


def _read(readings: Iterable[Reading]) -> list[CounterMetricFamily | GaugeMetricFamily]:
    families: dict[Figure, CounterMetricFamily | GaugeMetricFamily] = {}
    for figure, values, value in readings:
        family = families.get(figure)
        if family is None:
            kind = CounterMetricFamily if figure.counter else GaugeMetricFamily
            family = families[figure] = kind(figure.name, figure.text, labels=figure.labels)
        family.add_metric(values, value)
    return list(families.values())


@final
class _Families:
    """What prometheus_client wants of a collector, around families that are there already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
