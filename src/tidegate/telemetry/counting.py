"""Counters, gauges and histograms for one gevent process, without locks.

prometheus_client guards every increment with a lock, for threads that this process does not have;
with two dozen of them per request that is a tenth of what a call costs. These do plain
arithmetic - greenlets do not switch inside it - and are shown by prometheus_client's exposition.
Never touched by native threads.

    REQUESTS = CounterFamily("requests", "Requests answered.", ("method",))
    REQUESTS.labels("GET").inc()
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric


@final
class Number:
    """One value of a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        """More."""
        self.value += by

    def dec(self, by: float = 1.0) -> None:
        """Less; for gauges."""
        self.value -= by


@final
class Distribution:
    """One histogram: how many observations fell below each bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulated(self) -> list[tuple[str, float]]:
        """(upper bound, observations up to it), the last one without bound."""
        seen, shown = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            shown.append((bound, float(seen)))
        return shown


class Family[Child]:
    """One metric with a child for each set of label values. Follows prometheus' Collector."""

    def __init__(
        self, kind: str, name: str, text: str, labels: tuple[str, ...], make: Callable[[], Child]
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.label_names = labels
        self.children: dict[tuple[str, ...], Child] = {}
        self._make = make

    def labels(self, *values: str) -> Child:
        """The child of these label values; made at its first use. Keep it where it is hot."""
        child = self.children.get(values)
        if child is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} takes the labels {self.label_names}, not {values}")
            child = self.children[values] = self._make()
        return child

    @property
    def only(self) -> Child:
        """The child of a metric without labels."""
        return self.labels()

    def describe(self) -> Iterable[Metric]:
        """For the registry, which must not ask for values while a module is imported."""
        return (Metric(self.name, self.text, self.kind),)

    def collect(self) -> Iterable[Metric]:
        """Everything that was counted, for the exposition."""
        family = self._shown()
        for values, child in list(self.children.items()):
            self._add(family, values, child)
        return (family,)

    def _shown(self) -> Any:
        raise NotImplementedError

    def _add(self, family: Any, values: tuple[str, ...], child: Child) -> None:
        family.add_metric(values, child.value)  # type: ignore[attr-defined]


@final
class CounterFamily(Family[Number]):
    """Something that only grows; shown as ``<name>_total``."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__("counter", name, text, labels, Number)

    def _shown(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.text, labels=self.label_names)


@final
class GaugeFamily(Family[Number]):
    """Something that goes up and down."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__("gauge", name, text, labels, Number)

    def _shown(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.text, labels=self.label_names)


@final
class HistogramFamily(Family[Distribution]):
    """Durations, in seconds, by buckets."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        super().__init__("histogram", name, text, labels, lambda: Distribution(bounds))

    def _shown(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.text, labels=self.label_names)

    def _add(self, family: Any, values: tuple[str, ...], child: Distribution) -> None:
        family.add_metric(values, buckets=child.cumulated(), sum_value=child.sum)
