"""What does not fit into memory waits on disk, and no longer than it waits."""

import os

import pytest

from tidegate.calls import spool as spool_module
from tidegate.calls.spool import Spool


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT", 1000)
    monkeypatch.setattr(spool_module, "READ_SIZE", 100)
    made = Spool(tmp_path)
    yield made
    made.close()


def on_disk(spool):
    return sum(os.fstat(one._file.fileno()).st_size for one in spool._segments)


def test_bodies_come_back_whole_and_in_order(spool):
    bodies = [bytes([n]) * (n * 7 % 400) for n in range(1, 120)]
    for body in bodies:
        spool.append(body)
    found = []
    while spool.size:
        found += spool.take()
    assert found == bodies
    assert on_disk(spool) == 0


def test_a_reader_that_is_always_a_little_behind_does_not_fill_the_disk(spool):
    """The file grew by all that passed: 1 GiB may wait, ten minutes of a flood are 60."""
    for n in range(500):
        spool.append(b"%03d" % n * 100)
        if n >= 2:
            assert spool.take() == [b"%03d" % (n - 2) * 100]
        assert spool.size == min(n + 1, 2 if n >= 2 else 3) * 304
        assert on_disk(spool) <= 3000


def test_what_is_read_to_its_end_takes_new_bodies(spool):
    for n in range(20):
        spool.append(b"x" * 500)
        assert spool.take() == [b"x" * 500]
        assert (spool.size, on_disk(spool)) == (0, 0), n
