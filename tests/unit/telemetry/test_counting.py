"""Counters, gauges and histograms as Prometheus reads them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tidegate.telemetry import metrics
from tidegate.telemetry.counting import CounterFamily, GaugeFamily, HistogramFamily


class Shown:
    def __init__(self, families) -> None:
        self.families = families

    def collect(self):
        return [family.shown(dict(family.samples())) for family in self.families]


def shown(*families) -> str:
    registry = CollectorRegistry()
    registry.register(Shown(families))
    return generate_latest(registry).decode()


def test_a_counter_grows_per_set_of_labels() -> None:
    family = CounterFamily("calls", "Calls.", ("plugin", "status"))
    family.labels("a", "ok").inc()
    family.labels("a", "ok").inc(2)
    family.labels("b", 'od"d\n').inc()
    text = shown(family)
    assert "# HELP calls_total Calls.\n# TYPE calls_total counter" in text
    assert 'calls_total{plugin="a",status="ok"} 3.0' in text
    assert 'calls_total{plugin="b",status="od\\"d\\n"} 1.0' in text


def test_a_gauge_without_labels_goes_up_and_down() -> None:
    family = GaugeFamily("open", "Open.")
    family.only.inc()
    family.only.inc()
    family.only.dec()
    assert "\nopen 1.0\n" in shown(family)


def test_a_histogram_counts_what_is_below_each_bound() -> None:
    family = HistogramFamily("seconds", "Seconds.", ("route",), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        family.labels("x").observe(value)
    text = shown(family)
    for bound, count in (("0.1", 2), ("1.0", 3), ("+Inf", 4)):
        assert f'seconds_bucket{{le="{bound}",route="x"}} {count}.0' in text
    assert 'seconds_count{route="x"} 4.0' in text
    assert 'seconds_sum{route="x"} 7.65' in text


def test_wrong_labels_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="takes the labels"):
        CounterFamily("calls", "Calls.", ("plugin",)).labels("a", "b")


def test_D_07_a_call_is_counted_once_and_never_below_zero() -> None:
    labels = ("acme/once", "tool", "local")
    call = metrics.Invocation("acme/once", "tool", "invoke_tool")
    assert metrics.INVOCATIONS_ACTIVE.labels(*labels).value == 1
    call.finished("timeout")
    call.finished("client_disconnect")
    assert metrics.INVOCATIONS_ACTIVE.labels(*labels).value == 0
    ended = metrics.INVOCATIONS.labels(*labels, "invoke_tool", "timeout")
    assert ended.value == 1
    text = metrics.render().decode()
    assert 'status="timeout"' in text
    assert 'plugin_invocation_duration_seconds_count{operation="invoke_tool"' in text


def test_what_is_read_elsewhere_is_shown_beside() -> None:
    text = metrics.render(
        [
            (metrics.STREAMS_OPENED, (), 3),
            (metrics.HOST_FIGURE, ("sessions",), 5),
            (metrics.HOST_FIGURE, ("starts",), 6),
        ]
    ).decode()
    assert "tidegate_streams_opened_total 3.0" in text
    assert 'tidegate_host{figure="sessions"} 5.0' in text
    assert text.count("# TYPE tidegate_host gauge") == 1


def test_every_name_is_there_once() -> None:
    names = [one.name for one in (*metrics.COUNTED, *metrics.FIGURES)]
    assert len(names) == len(set(names))
