"""What people and metrics are told about the plugins of a host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tidegate.clock import SYSTEM_CLOCK
from tidegate.hosts.entrance import Entrance
from tidegate.hosts.local import LocalInstance
from tidegate.hosts.processes import look_at
from tidegate.hosts.supervisor import Supervisor
from tidegate.ids import plugin_id_of

_ERROR_SHOWN: Final = 2000
_TOTALS: Final = (
    "instances", "sessions", "waiting", "starts", "deaths", "opened", "served",
    "ooms", "limited", "hangs",
    "backlog_bytes", "memory_bytes", "lines", "late", "noise", "damaged",
)  # fmt: skip


def status_of(supervisor: Supervisor) -> dict[str, Any]:
    """One plugin: its phase, its processes, its deaths and what it last said about them."""
    return {
        "identifier": supervisor.identifier,
        "phase": supervisor.phase.value,
        "waiting": supervisor.waiting,
        "starts": supervisor.starts,
        "deaths": supervisor.restarts.deaths,
        "quarantined_until": supervisor.restarts.quarantined_until,
        # It goes to the console and over HTTP; a traceback may be of any length.
        "last_error": supervisor.last_error[:_ERROR_SHOWN],
        "instances": [_instance(one) for one in _processes(supervisor)],
    }


def status_elsewhere(identifier: str, runtime: str, entrance: Entrance | None) -> dict[str, Any]:
    """A plugin that is no process of this host; its runtime adds what it knows of it."""
    return {
        "identifier": identifier,
        "runtime": runtime,
        "phase": "up",
        "waiting": entrance.waiting if entrance is not None else 0,
        "starts": 0,
        "deaths": 0,
        "quarantined_until": 0,
        "last_error": "",
        "instances": [],
    }


def figures_of(supervisors: Iterable[Supervisor]) -> dict[str, Any]:
    """Numbers for metrics: totals by their names, and each plugin's under ``plugins``."""
    # Each once, then added up: a total that is not the sum of its parts helps nobody.
    plugins = {one.identifier: _figures(one) for one in supervisors}
    totals = {name: sum(one[name] for one in plugins.values()) for name in _TOTALS}
    return {
        "up": sum(one["phase"] == "up" for one in plugins.values()),
        **totals,
        "plugins": plugins,
    }


def elsewhere_of(statuses: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """What other runtimes run, for metrics: runtime type -> plugin id -> open sessions."""
    found: dict[str, dict[str, int]] = {}
    for one in statuses:
        sessions = sum(part["sessions"] for part in one["instances"] or [one])
        plugins = found.setdefault(one["runtime"], {})
        plugin_id = plugin_id_of(one["identifier"])
        plugins[plugin_id] = plugins.get(plugin_id, 0) + sessions
    return found


def _figures(supervisor: Supervisor) -> dict[str, Any]:
    instances = _processes(supervisor)
    counters = [one.table.counters for one in instances]
    return {
        "phase": supervisor.phase.value,
        "instances": len(instances),
        "sessions": sum(one.load for one in instances),
        "waiting": supervisor.waiting,
        "starts": supervisor.starts,
        "deaths": supervisor.restarts.deaths,
        "opened": sum(one.table.opened for one in instances),
        "served": sum(one.table.served for one in instances),
        "backlog_bytes": sum(one.table.backlog for one in instances),
        "ooms": supervisor.ooms,
        "limited": supervisor.limited,
        "hangs": supervisor.hangs,
        "memory_bytes": sum(_memory(one) for one in instances),
        "lines": sum(one.lines for one in counters),
        "late": sum(one.late for one in counters),
        "noise": sum(one.noise for one in counters),
        "damaged": sum(one.damaged for one in counters),
    }


def _processes(supervisor: Supervisor) -> list[LocalInstance]:
    """Without one that is being given its files and has no process yet."""
    return [one for one in supervisor.instances if one.pid]


def _instance(instance: LocalInstance) -> dict[str, Any]:
    return {
        "pid": instance.pid,
        "state": instance.state.value,
        "sessions": instance.load,
        "served": instance.table.served,
        "uptime": round(SYSTEM_CLOCK.monotonic() - instance.started_at, 3),
        "ready_after": round(instance.ready_after, 3),
        "memory_bytes": _memory(instance),
        "rung": instance.box.rung,
        "uid": instance.box.uid,
    }


def _memory(instance: LocalInstance) -> int:
    """Resident bytes of an instance and what it started, as they were last looked at."""
    # What care saw last. Before its first look, the process alone.
    if instance.memory:
        return instance.memory
    process = look_at(instance.pid)
    return process.memory if process is not None else 0
