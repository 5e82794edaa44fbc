"""System calls of this process that fail at the N-th one, for paths that carry a mark (T-R2, T-R4).

EINTR is not among the errors: Python repeats such calls by itself (PEP 475).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)
_BY_PATH = ("open", "mkdir", "rename", "replace", "link", "symlink", "chmod", "utime", "scandir")
_BY_DESCRIPTOR = ("write", "fsync", "ftruncate", "fchmod")


class Failing:
    """Counts calls; the ``nth`` fails with ``error``, and all after it as well when ``lasting``:
    a disk that is full stays full."""

    def __init__(self, mark: str, nth: int, error: int, *, lasting: bool) -> None:
        self._mark = mark
        self._nth = nth
        self._error = error
        self._lasting = lasting
        self.calls = 0
        self.failed: list[str] = []

    def wrap(self, name: str, real: Callable[..., Any], *, by_path: bool) -> Callable[..., Any]:
        """``real`` as long as it does not have to fail."""

        def call(first: Any, *rest: Any, **named: Any) -> Any:
            if self._is_marked(first, named.get("dir_fd"), by_path=by_path):
                self.calls += 1
                if self.calls == self._nth or (self._lasting and self.calls > self._nth):
                    self.failed.append(name)
                    raise OSError(self._error, os.strerror(self._error), str(first))
            return real(first, *rest, **named)

        return call

    def _is_marked(self, first: Any, folder: int | None, *, by_path: bool) -> bool:
        if isinstance(first, int):  # open() of a descriptor asks the kernel for nothing
            return not by_path and self._mark in _name_of(first)
        path = os.fsdecode(first)
        return self._mark in path or (folder is not None and self._mark in _name_of(folder))


def _name_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


@contextmanager
def failing(mark: str, nth: int, error: int, *, lasting: bool = False) -> Iterator[Failing]:
    """In this block, the ``nth`` call for a path with ``mark`` in it fails."""
    shim = Failing(mark, nth, error, lasting=lasting)
    with pytest.MonkeyPatch.context() as patch:
        for name in _BY_PATH:
            patch.setattr(os, name, shim.wrap(name, getattr(os, name), by_path=True))
        for name in _BY_DESCRIPTOR:
            patch.setattr(os, name, shim.wrap(name, getattr(os, name), by_path=False))
        opens = shim.wrap("open", builtins.open, by_path=True)
        patch.setattr(builtins, "open", opens)
        patch.setattr(io, "open", opens)
        yield shim
