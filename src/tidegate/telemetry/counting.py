"""Counters, gauges and histograms for one gevent process, without locks.

prometheus_client guards every increment with a lock, for threads that this process does not have;
with two dozen of them per request that is a tenth of what a call costs. These do plain
arithmetic - greenlets do not switch inside it - and are shown by prometheus_client's exposition.
Never touched by native threads.

    REQUESTS = CounterFamily("requests", "Requests answered.", ("method",))
    REQUESTS.labels("GET").inc()

What is shown is the sum over processes: a family hands out its samples as plain numbers
(:mod:`tidegate.telemetry.snapshots`), and shows numbers that were added up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, Protocol, cast, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from tidegate.telemetry.snapshots import Samples


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

    def sample(self) -> list[float]:
        """As numbers that can be added to those of another process."""
        return [self.value]


@final
class Distribution:
    """One histogram: how many observations fell below each bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        # Per bucket and not running totals: one addition per observation, and the sum over
        # processes is exact.
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def sample(self) -> list[float]:
        """Observations per bucket, then the sum: numbers that can be added to another's."""
        return [*self.counts, self.sum]


class _Child(Protocol):
    def sample(self) -> list[float]: ...


class Family[Child: _Child](ABC):
    """One metric with a child for each set of label values."""

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
            # Only at its first use: the look-up before it has found all others.
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} takes the labels {self.label_names}, not {values}")
            child = self.children[values] = self._make()
        return child

    @property
    def only(self) -> Child:
        """The child of a metric without labels."""
        return self.labels()

    def samples(self) -> Samples:
        """What this process counted."""
        return [(values, child.sample()) for values, child in self.children.items()]

    def shown(self, totals: Mapping[tuple[str, ...], list[float]]) -> Metric:
        """For the exposition: samples of this metric that were added up."""
        family = self._shown()
        for values, numbers in totals.items():
            self._add(family, values, numbers)
        return cast(Metric, family)

    @abstractmethod
    def _shown(self) -> Any:
        """The library's metric of this kind, without samples yet."""

    def _add(self, family: Any, values: tuple[str, ...], numbers: list[float]) -> None:
        family.add_metric(values, numbers[0])


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
        self._bounds = (*map(str, bounds), "+Inf")

    def _shown(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.text, labels=self.label_names)

    def _add(self, family: Any, values: tuple[str, ...], numbers: list[float]) -> None:
        *counts, total = numbers
        if len(counts) != len(self._bounds):  # of a version with other buckets, before a reload
            return
        buckets = list(zip(self._bounds, accumulate(counts), strict=True))
        family.add_metric(values, buckets=buckets, sum_value=total)
