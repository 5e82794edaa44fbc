"""The table of rows is complete and true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.runtime.rows import LATER, ROWS

TESTS = Path(__file__).resolve().parents[1]
ALL = {f"R{number}" for number in range(1, 34)}


def _rows_of(file: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse((TESTS / file).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for row in re.findall(r"(?<![A-Za-z0-9])R[0-9]+(?![0-9])", node.name.replace("_", " ")):
                found.setdefault(row, []).append(node.name)
    return found


def test_every_row_has_a_test_or_the_issue_that_brings_it():
    assert set(ROWS) | set(LATER) == ALL
    assert not set(ROWS) & set(LATER)
    for row, why in LATER.items():
        assert re.search(r"issue [0-9]+$|\(none\)$", why), row


def test_every_file_of_the_table_has_a_test_with_the_rows_name():
    for row, files in ROWS.items():
        assert files, row
        for file in files:
            assert row in _rows_of(file), f"{file} has no test for {row}"


def test_every_test_with_a_rows_name_is_in_the_table():
    for path in sorted((TESTS / "runtime").glob("test_*.py")):
        for row in _rows_of(f"runtime/{path.name}"):
            assert f"runtime/{path.name}" in ROWS[row], f"{path.name} covers {row} too"


def test_what_is_not_for_now_has_no_test_yet():
    files = {file for files in ROWS.values() for file in files}
    for file in files:
        assert not set(_rows_of(file)) & set(LATER), file
