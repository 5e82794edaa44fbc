"""docs/compatibility.md holds the whole register, and every answer in it has its test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
