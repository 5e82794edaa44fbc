"""What the host counted, as /metrics/ shows it."""

from __future__ import annotations

from time import monotonic

import msgspec

from tidegate.api.own_routes import host_readings
from tidegate.backcalls.tally import Tally
from tidegate.telemetry import metrics


def test_back_calls_of_the_host_are_shown_by_type_and_outcome():
    tally = Tally()
    tally.ended("llm", "success", monotonic() - 2)
    tally.ended("llm", "error", monotonic() - 1)
    tally.refused("no such type")
    sent = msgspec.json.decode(msgspec.json.encode({"backcalls": tally.shown()}))  # the link
    text = metrics.render(host_readings(sent)).decode()
    assert 'tidegate_backcalls_total{outcome="success",type="llm"} 1.0' in text
    assert 'tidegate_backcalls_total{outcome="error",type="llm"} 1.0' in text
    assert 'tidegate_backcalls_total{outcome="refused",type="unknown"} 1.0' in text
    assert 'tidegate_backcall_seconds_total{type="llm"} 3.' in text


def test_a_host_of_an_older_version_without_them_is_shown_as_well():
    assert b"tidegate_backcalls" not in metrics.render(host_readings({"up": 1}))
