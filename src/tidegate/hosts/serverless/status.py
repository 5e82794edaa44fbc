"""What is told of a function that was called since the host started."""

from __future__ import annotations

from typing import Any

from tidegate.hosts.entrance import Entrance
from tidegate.hosts.serverless.functions import Known


def status_of(identifier: str, known: Known, entrance: Entrance | None) -> dict[str, Any]:
    """One function as ``tidegate plugin list`` and /metrics see it (hosts/status)."""
    return {
        "identifier": identifier,
        "runtime": "serverless",
        "phase": "up",
        "waiting": entrance.waiting if entrance is not None else 0,
        "starts": 0,
        "deaths": 0,
        "quarantined_until": 0,
        "last_error": "",
        "function": {"name": known.function.name, "url": known.function.url},
        "sessions": entrance.sessions if entrance is not None else 0,
        "served": known.served,
        "instances": [],
    }
