"""The runner of the suite: who stops it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.run import Lane, stop

HANGING = """
import pathlib, time, pytest

@pytest.fixture
def stack():
    pathlib.Path({up!r}).touch()
    yield
    pathlib.Path({down!r}).touch()

def test_that_hangs(stack):
    time.sleep(600)
"""


@pytest.mark.parametrize("patched", [True, False], ids=["patched", "plain"])
def test_stopping_a_lane_ends_what_its_fixtures_started(tmp_path: Path, patched: bool) -> None:
    up, down, file = tmp_path / "up", tmp_path / "down", tmp_path / "test_hanging.py"
    file.write_text(HANGING.format(up=str(up), down=str(down)))
    lane = Lane("hanging", patched, [str(file)], tmp_path)
    lane.start()
    try:
        wait_until(up.exists, 30)
    finally:
        stop([lane])
    assert down.exists()
    assert not lane.running()
