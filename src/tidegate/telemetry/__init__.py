"""Logs and metrics. ``metrics`` is imported by name: only roles that count need its library."""

from __future__ import annotations

from tidegate.telemetry.logs import Log, configure_logging, get_log

__all__ = ["Log", "configure_logging", "get_log"]
