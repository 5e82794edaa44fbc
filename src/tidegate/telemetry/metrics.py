"""Every metric, once: names of the reference where it has one (spec/http/07 section 7.1).

All live in :data:`REGISTRY`; ``docs/reference/metrics.md`` is generated from this file.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

REGISTRY = CollectorRegistry()

OUTPUT_SCHEMA_VIOLATIONS = Counter(
    "tidegate_output_schema_violations",
    "Calls whose variables did not fit the tool's output_schema.",
    ["plugin_id", "mode"],
    registry=REGISTRY,
)
