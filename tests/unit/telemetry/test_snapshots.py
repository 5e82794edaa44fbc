"""What processes counted, added up: each once, the dead as well, another start's never."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.telemetry import metrics, snapshots
from tidegate.telemetry.sharing import Sharing
from tidegate.telemetry.snapshots import (
    OwnFile,
    Snapshot,
    Totals,
    forget_the_gone,
    read_others,
)

MINE = ("acme/mine", "success")
DIE = """
import os, sys
from pathlib import Path
from tidegate.telemetry.snapshots import OwnFile, Snapshot
own = OwnFile(Path(sys.argv[1]), "worker")
own.write(own.changed(Snapshot({"calls": [(("a",), [3.0])]}, {"open": [((), [1.0])]})))
os.kill(os.getpid(), 9)
"""


def one(calls: float, running: float = 0.0) -> Snapshot:
    return Snapshot({"calls": [(("a",), [calls])]}, {"open": [((), [running])]})


def written(folder: Path, snapshot: Snapshot, role: str = "api") -> OwnFile:
    own = OwnFile(folder, role)
    data = own.changed(snapshot)
    assert data is not None
    own.write(data)
    return own


def summed(folder: Path, own: str = "") -> dict[str, float]:
    totals = Totals()
    for snapshot in read_others(folder, own):
        totals.add(snapshot.grown)
        totals.add(snapshot.current)
    return {name: sum(v[0] for v in rows.values()) for name, rows in totals.values.items()}


def test_living_processes_are_added_up_and_the_one_that_asks_is_left_out(tmp_path: Path) -> None:
    first, second = written(tmp_path, one(2, 1)), written(tmp_path, one(5, 1), "worker")
    assert summed(tmp_path) == {"calls": 7, "open": 2}
    assert summed(tmp_path, first.name) == {"calls": 5, "open": 1}
    first.close()
    second.close()


@pytest.mark.blocks_hub("starts a process")
def test_a_killed_process_keeps_its_counts_and_loses_its_gauges(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], check=False)
    assert died.returncode == -9
    assert summed(tmp_path) == {"calls": 3}


def test_the_dead_become_one_file_when_a_process_starts_and_count_once(tmp_path: Path) -> None:
    for calls in (1, 2, 3):
        written(tmp_path, one(calls, 1)).close()
        assert len(list(tmp_path.glob("api-*.json"))) == 1
    living = written(tmp_path, one(10, 1))
    assert [path.stem for path in tmp_path.glob("api-*.json")] == [living.name]
    assert summed(tmp_path) == {"calls": 16, "open": 1}
    living.close()


def test_killed_between_the_sum_and_the_removal_nothing_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, one(4)).close()
    with monkeypatch.context() as broken:
        broken.setattr("tidegate.telemetry.snapshots._remove", lambda *_: None)
        OwnFile(tmp_path, "api").close()
    assert len(list(tmp_path.glob("api-*.json"))) == 1
    assert summed(tmp_path) == {"calls": 4}
    OwnFile(tmp_path, "api").close()  # the next one folds again, and cleans up
    assert not list(tmp_path.glob("api-*.json"))
    assert summed(tmp_path) == {"calls": 4}


def test_what_is_added_up_while_somebody_reads_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, one(4)).close()
    waiting = [lambda: OwnFile(tmp_path, "api").close()]

    def names_after_a_fold(folder: Path) -> set[str]:
        if waiting:
            waiting.pop()()
        return names(folder)

    names = snapshots._names
    monkeypatch.setattr(snapshots, "_names", names_after_a_fold)
    assert summed(tmp_path) == {"calls": 4}


def test_a_start_forgets_the_dead_and_keeps_who_lives(tmp_path: Path) -> None:
    written(tmp_path, one(1)).close()
    written(tmp_path, one(2)).close()
    living = written(tmp_path, one(8), "worker")
    forget_the_gone(tmp_path)
    assert summed(tmp_path) == {"calls": 8, "open": 0}
    living.close()
    forget_the_gone(tmp_path)
    assert summed(tmp_path) == {}


def test_a_file_that_is_not_a_snapshot_costs_nobody_the_metrics(tmp_path: Path) -> None:
    written(tmp_path, one(2)).close()
    (tmp_path / "api-1-torn.json").write_bytes(b'{"grown": {"calls"')
    assert summed(tmp_path) == {"calls": 2}


def test_a_folder_that_is_not_there_is_no_sibling(tmp_path: Path) -> None:
    assert summed(tmp_path / "none") == {}
    forget_the_gone(tmp_path / "none")


def test_an_unchanged_snapshot_is_not_written_again(tmp_path: Path) -> None:
    own = written(tmp_path, one(2))
    assert own.changed(one(2)) is None
    assert own.changed(one(3)) is not None
    own.close()


def test_histograms_are_added_by_bucket_and_other_buckets_are_left_out(tmp_path: Path) -> None:
    name, labels = metrics.INSTALLATION_SECONDS.name, ("acme/buckets",)
    counts = [1.0] * (len(metrics.INSTALL_SECONDS) + 1)
    totals = Totals()
    for values in ([*counts, 9.0], [*counts, 1.0], [1.0, 2.0]):
        totals.add({name: [(labels, values)]})
    totals.add({name: [(("acme/other",), [1.0, 2.0])]})
    text = metrics.render(totals=totals).decode()
    assert f'{name}_bucket{{le="0.5",plugin_id="acme/buckets"}} 2.0' in text
    assert f'{name}_count{{plugin_id="acme/buckets"}} {2.0 * len(counts)}' in text
    assert f'{name}_sum{{plugin_id="acme/buckets"}} 10.0' in text
    assert "acme/other" not in text


def test_who_answers_shows_itself_as_of_now_and_the_others_as_written(tmp_path: Path) -> None:
    metrics.INSTALLATIONS.labels(*MINE).inc()
    before = metrics.INSTALLATIONS.labels(*MINE).value
    other = Snapshot({metrics.INSTALLATIONS.name: [(MINE, [5.0])]})
    sibling = written(tmp_path, other, "worker")
    asked = Sharing(tmp_path, "api", lambda: [(metrics.STREAMS_OPENED, (), 2.0)])
    text = asked.show([(metrics.HOST_UP, (), 1.0)]).decode()
    shown = f'plugin_installations_total{{plugin_id="{MINE[0]}",status="success"}}'
    assert f"{shown} {before + 5}" in text
    assert "tidegate_streams_opened_total 2.0" in text
    assert "tidegate_host_up 1.0" in text
    sibling.close()


def test_a_folder_that_cannot_be_written_stops_no_role(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    Sharing(blocked / "metrics", "worker").start()


FULL = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, shutil, sys
from pathlib import Path
from tidegate.telemetry import metrics, sharing
sharing.EVERY = 0.01
folder = Path(sys.argv[1])
one = sharing.Sharing(folder, "worker")
one.start()
shutil.rmtree(folder)
for _ in range(3):
    metrics.REQUESTS_REFUSED.labels("full").inc()
    gevent.sleep(0.1)
folder.mkdir()
metrics.REQUESTS_REFUSED.labels("full").inc()
"""


@pytest.mark.blocks_hub("starts a process")
def test_a_failed_write_is_said_once_and_the_exit_writes_what_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], check=True, capture_output=True, text=True
    )
    assert ran.stderr.count("metrics cannot be shared") == 1
    assert "Traceback" not in ran.stderr
    assert summed(folder) == {"tidegate_requests_refused": 4}
