"""docs/compatibility.md holds the whole register, and every answer in it has its test.

Its list of differences on the wire is held against runs of a probe by scripts/compatibility.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import compatibility  # noqa: E402 - after the path

PAGE = ROOT / "docs" / "compatibility.md"
ROW = re.compile(r"^\| D-(\d\d) \| .+ \| (yes|in part|none) \|$", re.MULTILINE)


def register() -> dict[str, str]:
    """Number -> whether it is answered."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(rows) == len(dict(rows)), "a number stands twice"
    return dict(rows)


def answered_by_name() -> set[str]:
    """Numbers that names of tests carry."""
    names = [
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
    ]
    return {number for name in names for number in re.findall(r"_D_(\d\d)(?=_)", name)}


def test_every_defect_stands_in_the_register() -> None:
    assert sorted(register()) == [f"{number:02}" for number in range(1, 70)]


def test_every_answered_defect_has_a_test_of_its_number() -> None:
    answered = {number for number, state in register().items() if state != "none"}
    assert sorted(answered - answered_by_name()) == []


def test_no_test_names_what_does_not_exist_here() -> None:
    absent = {number for number, state in register().items() if state == "none"}
    assert sorted(absent & answered_by_name()) == []
    assert answered_by_name() <= register().keys()


def test_D_58_the_image_probes_the_server_that_runs() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    [probe] = re.findall(r"^HEALTHCHECK .*$", text, re.MULTILINE)
    assert "/health/" in probe
    assert "tidegate" not in probe


# ------------------------------------------------------------------ what a probe finds


def explained() -> list[tuple[str, list[str]]]:
    return compatibility.explained(PAGE.read_text(encoding="utf-8"))


def test_every_difference_has_one_row_with_its_reason() -> None:
    rows = explained()
    names = [name for name, _ in rows]
    assert len(names) >= 90
    assert sorted(names) == sorted(set(names)), "a check stands twice"
    for name, columns in rows:
        assert len(columns) == 3, name
        daemon, here, why = columns
        assert daemon.strip(" -."), f"{name}: what the daemon does"
        assert here.strip(" -."), f"{name}: what is done here"
        assert why.strip(" -."), f"{name}: why"
        assert daemon != here, name


def test_words_that_reasons_use_are_explained_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for words in ("bytes pass", "the receiver judges", "one type", "not found"):
        assert f"*{words}* - " in page


@pytest.mark.parametrize("change", ["none", "new", "gone", "unasked", "stopped"])
def test_a_run_is_compared_with_the_page(tmp_path: Path, change: str) -> None:
    names = [name for name, _ in explained()]
    run = [{"id": name, "ok": False} for name in names] + [{"id": "fine", "ok": True}]
    said = ""
    if change == "new":
        run.append({"id": "surprise", "ok": False})
        said = "surprise: differs, and no row says why"
    elif change == "gone":
        run[0]["ok"] = True
        said = f"{names[0]}: has a row, but is as the daemon"
    elif change == "unasked":
        del run[0]
        said = f"{names[0]}: has a row, but was not asked"
    elif change == "stopped":
        run.append({"id": "endpoint", "ok": False, "spec": "harness"})
        said = "endpoint: differs, and no row says why"
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "compatibility.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said in done.stdout
    assert (done.returncode == 0) == (change == "none"), done.stdout + done.stderr
