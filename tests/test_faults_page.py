"""The list of fault designs, the tests that carry their ids and docs/faults.md are one thing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from tests.faults.designs import DESIGNS, EXCLUDED, GROUPS

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("faults_page", ROOT / "scripts" / "faults.py")
assert _SPEC is not None
assert _SPEC.loader is not None
script = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(script)

#: How many designs each group has; those beyond the list are excluded by name.
NUMBERS = {"K": 9, "P": 11, "B": 6, "R": 7, "G": 5, "H": 7, "I": 6, "S": 20}


def test_every_design_of_every_group_is_tested_or_excluded_with_a_reason() -> None:
    every = {f"T-{group}{number}" for group in GROUPS for number in range(1, NUMBERS[group] + 1)}
    assert set(DESIGNS) | set(EXCLUDED) == every
    assert not set(DESIGNS) & set(EXCLUDED)
    assert all(EXCLUDED.values())


def test_every_design_has_a_test_that_carries_its_id() -> None:
    found = script.tests_by_design()
    assert [design for design in DESIGNS if design not in found] == []


def test_no_test_carries_an_id_that_there_is_not() -> None:
    known = {*DESIGNS, *EXCLUDED}
    assert [design for design in script.tests_by_design() if design not in known] == []


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "faults.md").read_text("utf-8") == script.page(), (
        "run `python scripts/faults.py`"
    )


def test_no_bad_actor_of_the_record_hurt_anybody() -> None:
    record = json.loads((ROOT / "docs" / "faults.json").read_text("utf-8"))
    assert len(record["actors"]) > 20
    assert record["hurt"] == 0
