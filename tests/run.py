"""Run the whole suite: three patched shards and the plain lane at once, one result.

    python tests/run.py [files or folders]

pytest-xdist does not run under gevent's patch, so each lane is a pytest of its own:

* ``patched-1`` to ``patched-3`` - ``python -m gevent.monkey --module pytest`` on a third of the
  files each, split by the times in ``tests/durations.json``: half of the time a shard waits (for
  processes that start, for databases that are away), so that three keep two cores busy
* ``plain`` - ``tests/wire`` and ``tests/unit/packages`` once more, unpatched

The last line is ``N passed, N failed`` over all lanes; non-zero when anything failed, crashed or
ran no test. ``--record`` writes ``tests/durations.json`` anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
DURATIONS = TESTS / "durations.json"
PLAIN = ("tests/wire", "tests/unit/packages")
SHARDS = 3
BUDGET = 700.0
GUESS = 3.0
TELL = 15.0
CLEANING = 60.0


@dataclass
class Lane:
    """One pytest process, its files and what it reported so far."""

    name: str
    patched: bool
    files: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def report(self) -> Path:
        """Where conftest.py writes one line per test."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def output(self) -> Path:
        """What pytest printed."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start pytest; its output goes to a file, so that lanes do not mix."""
        module = ["-m", "gevent.monkey", "--module", "pytest"] if self.patched else ["-m", "pytest"]
        command = [sys.executable, *module, "-q", "--durations=10", *self.files]
        environ = {**os.environ, "TIDEGATE_TEST_REPORT": str(self.report)}
        self.started = time.monotonic()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # a Ctrl-C reaches it once, by us: the second breaks a clean-up
            )

    def running(self) -> bool:
        """Whether pytest still runs; notes the time when it ended."""
        assert self.process is not None
        if self.process.poll() is None:
            return True
        self.seconds = self.seconds or time.monotonic() - self.started
        return False

    def results(self) -> list[dict[str, object]]:
        """What was reported so far."""
        if not self.report.exists():
            return []
        lines = self.report.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def counted(self) -> Counter[str]:
        """How many tests ended how; of what comes before and after a test, only failures count."""
        return Counter(
            str(one["outcome"])
            for one in self.results()
            if one["when"] == "call" or one["outcome"] != "passed"
        )

    def finish(self) -> None:
        """Count outcomes; a lane that crashed counts as one more failure."""
        assert self.process is not None
        self.outcomes = self.counted()
        ended_well = self.process.returncode in (0, 5)  # 5: nothing to run
        if not ended_well and not self.outcomes["failed"]:
            self.outcomes["failed"] += 1


def main(arguments: list[str]) -> int:
    """Run the lanes, tell how far they are, print what failed and the sum."""
    # SIGINT as well: behind a shell's `&` it is ignored, and the lanes would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    record = "--record" in arguments
    wanted = [one for one in arguments if one != "--record"] or ["tests"]
    files = _test_files(wanted)
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-") as folder:
        lanes = _lanes(files, Path(folder))
        try:
            for lane in lanes:
                lane.start()
            _wait(lanes, sum(1 for _ in files))
        finally:
            stop(lanes)
        for lane in lanes:
            lane.finish()
            _tell(lane)
        if record:
            _record(lanes)
    return _sum(lanes)


def _interrupted(number: int, frame: object) -> None:
    """Nothing goes on behind a runner that is gone."""
    raise KeyboardInterrupt(f"signal {number}")


def _test_files(wanted: list[str]) -> list[str]:
    found: set[Path] = set()
    for one in wanted:
        path = ROOT / one
        found |= {path} if path.is_file() else set(path.rglob("test_*.py"))
    fixtures = TESTS / "plugins"
    return sorted(
        str(path.relative_to(ROOT))
        for path in found
        if fixtures not in path.parents or path.parent == fixtures
    )


def _lanes(files: list[str], folder: Path) -> list[Lane]:
    shards = _split(files)
    lanes = [Lane(f"patched-{n + 1}", True, shard, folder) for n, shard in enumerate(shards)]
    plain = [one for one in files if one.startswith(PLAIN)]
    lanes.append(Lane("plain", False, plain, folder))
    return [lane for lane in lanes if lane.files]


def _split(files: list[str]) -> list[list[str]]:
    """Longest first, each to the shard that has least so far; then in order, to be repeatable."""
    known = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.exists() else {}
    shards: list[list[str]] = [[] for _ in range(SHARDS)]
    loads = [0.0] * SHARDS
    for file in sorted(files, key=lambda one: (-known.get(one, GUESS), one)):
        least = loads.index(min(loads))
        shards[least].append(file)
        loads[least] += known.get(file, GUESS)
    return [sorted(shard) for shard in shards]


def _wait(lanes: list[Lane], files: int) -> None:
    print(f"{files} test files in {len(lanes)} lanes", flush=True)
    told = time.monotonic()
    while any([lane.running() for lane in lanes]):
        time.sleep(0.2)
        if time.monotonic() - told > TELL:
            told = time.monotonic()
            print("  ".join(_progress(lane) for lane in lanes), flush=True)


def _progress(lane: Lane) -> str:
    outcomes = lane.counted()
    failed = f", {outcomes['failed']} failed" if outcomes["failed"] else ""
    state = "" if lane.running() else " (done)"
    return f"{lane.name}: {outcomes['passed']} passed{failed}{state}"


def stop(lanes: list[Lane]) -> None:
    """End what still runs by Ctrl-C: only then do fixtures end the stacks that they started."""
    started = [lane.process for lane in lanes if lane.process is not None]
    end = time.monotonic() + CLEANING
    try:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(f"lanes did not end within {CLEANING:.0f} s: killed", flush=True)
    finally:
        for process in started:
            process.kill()
            process.wait()


def _tell(lane: Lane) -> None:
    assert lane.process is not None
    if lane.outcomes["failed"] or lane.process.returncode not in (0, 5):
        print(f"\n===== {lane.name} (exit {lane.process.returncode}) =====")
        print(lane.output.read_text(encoding="utf-8", errors="replace"), flush=True)
    over = " - OVER BUDGET" if lane.seconds > BUDGET else ""
    counts = f"{lane.outcomes['passed']} passed, {lane.outcomes['failed']} failed"
    print(f"{lane.name}: {counts} in {lane.seconds:.0f} s of {BUDGET:.0f}{over}", flush=True)


def _record(lanes: list[Lane]) -> None:
    seconds: Counter[str] = Counter()
    for lane in lanes:
        if lane.patched:
            for one in lane.results():
                seconds[str(one["test"]).split("::")[0]] += float(str(one["seconds"]))
    rounded = {name: round(value, 1) for name, value in sorted(seconds.items())}
    DURATIONS.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


def _sum(lanes: list[Lane]) -> int:
    total: Counter[str] = Counter()
    for lane in lanes:
        total.update(lane.outcomes)
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    print(f"{total['passed']} passed, {total['failed']} failed{skipped}", flush=True)
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
