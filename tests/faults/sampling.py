"""What every role of a stack has in memory, open and alive, time after time; and whether it grows.

A sample is taken while nothing is asked of the stack: what then differs from one sample to the
next is what stayed behind.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gevent

from tests.patience import wait_until
from tests.stack import ROLES, Stack

INSIDE = Path(__file__).with_name("inside")
_CENSUS = signal.SIGRTMIN + 5


@dataclass(frozen=True)
class Held:
    """Of one role, or of the whole tree below `up` (there without memory and greenlets)."""

    memory: int
    descriptors: int
    greenlets: int
    processes: int


class Sampler:
    """Samples of one stack. ``environ`` has to be given to it before it starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "census"
        self._folder.mkdir()
        self.samples: list[dict[str, Held]] = []
        self.times: list[float] = []

    @property
    def environ(self) -> dict[str, str]:
        """Has each role count its greenlets when it is asked."""
        return {"PYTHONPATH": str(INSIDE), "TIDEGATE_CENSUS": str(self._folder)}

    def take(self, stack: Stack) -> dict[str, Held]:
        """A sample of now. The test fails when anybody below `up` is a zombie."""
        found = {role: self._of(role_pids(stack, role)) for role in ROLES}
        assert stack.process is not None
        everybody = tree(stack.process.pid)
        assert [pid for pid in everybody if state(pid) == "Z"] == []
        found["all"] = Held(0, sum(map(descriptors, everybody)), 0, len(everybody))
        self.samples.append(found)
        self.times.append(time.monotonic())
        return found

    def _of(self, pids: Sequence[int]) -> Held:
        return Held(
            sum(map(private_memory, pids)),
            sum(map(descriptors, pids)),
            self._greenlets(pids[-1]),
            len(pids),
        )

    def _greenlets(self, pid: int) -> int:
        answer = self._folder / str(pid)
        answer.unlink(missing_ok=True)
        os.kill(pid, _CENSUS)
        wait_until(answer.exists, 10)
        return int(answer.read_text())

    def table(self) -> str:
        """All samples, one per line, for whoever reads the log of a soak."""
        lines = []
        for at, sample in zip(self.times, self.samples, strict=True):
            cells = [
                f"{role} {one.memory / 1e6:.1f} MB {one.descriptors} fd {one.greenlets} g"
                for role, one in sample.items()
                if role != "all"
            ]
            whole = sample["all"]
            cells.append(f"all {whole.processes} processes {whole.descriptors} fd")
            lines.append(f"{at - self.times[0]:7.1f} s  " + "  ".join(cells))
        return "\n".join(lines)

    def growth(self, role: str, what: str, warm: int) -> tuple[float, float]:
        """(grown, mean) of ``what`` from sample ``warm`` to the last one, along a fitted line."""
        values = [float(getattr(sample[role], what)) for sample in self.samples[warm:]]
        slope = statistics.linear_regression(self.times[warm:], values).slope
        return slope * (self.times[-1] - self.times[warm]), statistics.fmean(values)


def role_pids(stack: Stack, role: str) -> list[int]:
    """The processes of a role that are ours, the one that serves last."""
    pid = stack.pid(role)
    if role != "api":
        return [pid]
    return [pid, *children(pid)]


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    return [pid, *(found for child in children(pid) for found in tree(child))]


def children(pid: int) -> list[int]:
    """Of any thread of a process."""
    found = []
    for tasks in _threads(pid):
        try:
            found += [int(child) for child in (tasks / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _threads(pid: int) -> Iterator[Path]:
    try:
        yield from sorted(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return


def state(pid: int) -> str:
    """R, S, Z and so on; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors(pid: int) -> int:
    """Open files of a process."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return 0


def private_memory(pid: int) -> int:
    """Bytes that only this process has: what would be free if it ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = [line for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))]
    return sum(int(line.split()[1]) << 10 for line in private)


def settle(seconds: float) -> None:
    """Let what ended be cleaned up: keep-alive connections, watchers, reaped children."""
    gevent.sleep(seconds)
