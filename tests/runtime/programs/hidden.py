"""``hidden.py PACKAGE PROGRAM ARGUMENTS``: run a console script with one package missing."""

from __future__ import annotations

import runpy
import sys
from importlib.abc import MetaPathFinder
from typing import Any

package, program, *arguments = sys.argv[1:]


class _Hider(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


sys.meta_path.insert(0, _Hider())
sys.argv = [program, *arguments]
runpy.run_path(program, run_name="__main__")
