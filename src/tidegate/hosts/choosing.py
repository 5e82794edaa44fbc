"""Which of a plugin's instances a call goes to: the one with the fewest sessions that takes one."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.hosts.local import LocalInstance
from tidegate.settings import Settings


def choose(pool: Sequence[LocalInstance], settings: Settings) -> LocalInstance | None:
    """The instance for one more session; None when none takes it."""
    # Nearly every plugin has one: this is on the way of every call.
    if len(pool) == 1:
        return pool[0] if _takes(pool[0], settings) else None
    takers = (one for one in pool if _takes(one, settings))
    return min(takers, key=lambda one: one.load, default=None)


def serves(instance: LocalInstance, settings: Settings) -> bool:
    """Whether calls go to it at all, now or when it has a session to give."""
    # One that is silent to its calls would be to the next: it goes to another, or to a new one.
    return instance.usable and not instance.table.stalled(settings.tidegate_stall_limit)


def _takes(instance: LocalInstance, settings: Settings) -> bool:
    cap = settings.tidegate_instance_sessions
    return (not cap or instance.load < cap) and serves(instance, settings)
