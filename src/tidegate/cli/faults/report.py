"""The report of a pack: two tables for people, one document for machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tidegate import __version__
from tidegate.cli.faults.running import Group, Seen


def facts(base: str, began: datetime, seen: Sequence[Seen]) -> dict[str, Any]:
    """Everything that was seen, as JSON can hold it."""
    return {
        "base": base,
        "began": began.isoformat(timespec="seconds"),
        "tidegate": __version__,
        "hurt": sum(bool(one.faults) for one in seen),
        "actors": [_fact(one) for one in seen],
    }


def tables(seen: Sequence[Seen]) -> str:
    """What the culprits got, and what it cost the bystanders."""
    culprits = [(one.actor.name, one.actor.did, one.culprit.shown()) for one in seen]
    bystanders = [
        (one.actor.name, *_cells(one.same), *_cells(one.other), "; ".join(one.faults) or "nobody")
        for one in seen
    ]
    group = ("whole", "gap s", "calls")
    heads = (
        "actor",
        *(f"same {name}" for name in group),
        *(f"other {name}" for name in group),
        "hurt",
    )
    hurt = sum(bool(one.faults) for one in seen)
    sum_line = f"{len(seen)} bad actors, {hurt} hurt somebody"
    return "\n\n".join(
        [_table(("actor", "did", "its own call"), culprits), _table(heads, bystanders), sum_line]
    )


def _cells(group: Group) -> tuple[str, str, str]:
    calls = f"{len(group.calls) - group.failed_calls}/{len(group.calls)} {group.slowest_call:.2f} s"
    return f"{group.whole}/{len(group.streams)}", f"{group.gap:.2f}", calls


def _fact(one: Seen) -> dict[str, Any]:
    return {
        "name": one.actor.name,
        "did": one.actor.did,
        "culprit": dataclasses.asdict(one.culprit),
        "same": _group(one.same),
        "other": _group(one.other),
        "hurt": one.faults,
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "streams": len(group.streams),
        "whole": group.whole,
        "ends": {end: group.count(end) for end in sorted({one.end for one in group.streams})},
        "errors": sorted({one.error for one in group.streams if one.error})[:3],
        "lost": group.lost,
        "gap_s": round(group.gap, 3),
        "calls": len(group.calls),
        "failed_calls": group.failed_calls,
        "slowest_call_s": round(group.slowest_call, 3),
    }


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["-" * len(head) for head in heads], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
