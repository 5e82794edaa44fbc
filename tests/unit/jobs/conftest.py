"""Broker files of these tests: each test has its own, and closes what it opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.jobs.queue_file import QueueFile


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    """A process keeps its broker file open for life; a test must not."""
    yield
    for file in list(QueueFile._open.values()):
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the broker's file is."""
    return tmp_path / "broker.db"


@pytest.fixture
def file(path: Path) -> QueueFile:
    """The file as this process sees it."""
    return QueueFile.at(path)
