"""The files that a door keeps in memory: bounded by their number and by their bytes."""

from __future__ import annotations

from tidegate.doors.dify import packages
from tidegate.doors.dify.packages import _Kept


def test_the_oldest_goes_when_there_are_too_many():
    kept = _Kept(2)
    kept.put("a", b"1")
    kept.put("b", b"2")
    assert kept.get("a") == b"1"
    kept.put("c", b"3")
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (b"1", None, b"3")


def test_large_files_take_no_more_room_than_there_is(monkeypatch):
    monkeypatch.setattr(packages, "_MOST_KEPT", 1000)
    kept = _Kept(1000)
    for number in range(20):
        kept.put(number, b"x" * 200)
        kept.put(number, b"x" * 200)
    assert [number for number in range(20) if kept.get(number)] == [15, 16, 17, 18, 19]
    kept.put("large", b"x" * 251)
    assert kept.get("large") is None
    assert kept.get(19) is not None
