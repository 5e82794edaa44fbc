"""The plan of the house holds: import directions, sizes, types, docstrings, nobody patches.

``docs/architecture.md`` draws the floors; this file is that drawing as code.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "tidegate"

#: Top to bottom. A room may import any room further down, none above, none beside it.
FLOORS = (
    ("cli", "api", "worker"),
    ("doors",),
    ("installs",),
    ("jobs", "calls", "hosts"),
    ("link", "backcalls", "environments"),
    ("storage", "packages", "wire"),
    ("runtime",),
    ("telemetry",),
    ("errors", "settings", "setting_fields", "clock", "ids", "deadline", "addresses"),
)
ENTRY_FILES = ("app", "gunicorn_conf", "celery_entrypoint", "host_entrypoint")
#: Rooms that must never see what lives in the host process only.
OUTSIDE_THE_HOST = ("api", "worker", "doors", "installs", "calls", "cli", "jobs")
INSIDE_THE_HOST = ("hosts", "environments")
LONGEST_FUNCTION = 60
LONGEST_MODULE = 500


@cache
def _level(room: str) -> int:
    for level, rooms in enumerate(FLOORS):
        if room in rooms:
            return level
    raise AssertionError(f"room {room} has no floor: draw it in tests/test_house.py and the docs")


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported_rooms(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
            if node.module == "tidegate":
                names = [f"tidegate.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "tidegate" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1], node.lineno


def _wrong_directions(room: str, tree: ast.Module) -> list[str]:
    if room in ENTRY_FILES or room == "__main__":
        allowed = {"runtime"} if room == "gunicorn_conf" else None
        return [
            f"{line}: {to}" for to, line in _imported_rooms(tree) if allowed and to not in allowed
        ]
    wrong = []
    for to, line in _imported_rooms(tree):
        if to == room:
            continue
        if to in ENTRY_FILES or to == "testing":
            wrong.append(f"{line}: nobody imports {to}")
        elif to in INSIDE_THE_HOST and room in OUTSIDE_THE_HOST:
            wrong.append(f"{line}: {to} lives in the host process only")
        elif _level(to) < _level(room):
            wrong.append(f"{line}: {to} is above {room}")
        elif _level(to) == _level(room) and _level(room) != len(FLOORS) - 1:
            wrong.append(f"{line}: {to} is on the floor of {room}")
        elif room in ("wire", "packages") and _level(to) != len(FLOORS) - 1:
            wrong.append(f"{line}: {room} imports the ground floor only")
    return wrong


def test_rooms_import_downwards_only() -> None:
    problems = []
    for path in _modules():
        room = _room(path)
        if room not in ("__init__", "testing"):
            relative = path.relative_to(ROOT)
            problems += [f"{relative}:{one}" for one in _wrong_directions(room, _tree(path))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("wire", "import tidegate.link"),
        ("link", "from tidegate.hosts import Host"),
        ("calls", "from tidegate import environments"),
        ("api", "from tidegate.hosts.local import LocalInstance"),
        ("packages", "from tidegate.telemetry.logs import get_log"),
        ("jobs", "import tidegate.calls"),
        ("doors", "from tidegate.app import app"),
        ("gunicorn_conf", "import tidegate.api"),
        ("storage", "from tidegate.testing import FakePlugin"),
    ],
)
def test_a_wrong_direction_is_seen(room: str, line: str) -> None:
    assert _wrong_directions(room, ast.parse(line))


def test_wire_and_packages_do_no_sockets_and_no_processes() -> None:
    forbidden = {"socket", "subprocess", "gevent", "multiprocessing", "requests", "http", "urllib3"}
    found = []
    for path in _modules():
        if _room(path) in ("wire", "packages"):
            for node in ast.walk(_tree(path)):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                found += [f"{path}: {name}" for name in names if name.split(".")[0] in forbidden]
    assert not found, "\n".join(found)


def test_no_application_module_patches() -> None:
    """Only the host's entry, whose first act it is, may call gevent's patch."""
    pattern = re.compile(r"^[^#\n\"'`]*\bpatch_(all|socket|thread|time)\(", re.MULTILINE)
    guilty = [path.name for path in _modules() if pattern.search(path.read_text(encoding="utf-8"))]
    assert set(guilty) <= {"host_entrypoint.py"}


def test_the_third_party_patches_are_applied_in_one_place() -> None:
    calls = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in _modules()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr)
        in ("init_gevent", "patch_psycopg")
    ]
    assert {one.split(":")[0] for one in calls} <= {"runtime/patches.py"}


def test_the_host_process_never_uses_subprocess() -> None:
    """gevent's subprocess takes the exit codes of plugins (docs/adr)."""
    guilty = []
    for path in _modules():
        if _room(path) in ("hosts", "environments", "backcalls", "link", "host_entrypoint"):
            for node in ast.walk(_tree(path)):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                    names.append(node.module or "")
                else:
                    continue
                if {"subprocess", "gevent.subprocess"} & set(names):
                    guilty.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not guilty, "\n".join(guilty)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_and_functions_stay_readable() -> None:
    long = []
    for path in _modules():
        relative = path.relative_to(ROOT)
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LONGEST_MODULE:
            long.append(f"{relative}: {lines} lines, split it by {LONGEST_MODULE}")
        for one in _functions(_tree(path)):
            length = (one.end_lineno or one.lineno) - one.lineno + 1
            if length > LONGEST_FUNCTION:
                long.append(f"{relative}:{one.lineno} {one.name}: {length} lines")
    assert not long, "\n".join(long)


def test_every_function_is_typed() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{one.lineno} {one.name}"
        for path in _modules()
        for one in _functions(_tree(path))
        if one.returns is None
    ]
    assert not bare, "\n".join(bare)


def test_every_public_class_and_module_says_what_it_promises() -> None:
    silent = []
    for path in _modules():
        if not ast.get_docstring(_tree(path)):
            silent.append(str(path.relative_to(ROOT)))
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} class {node.name}")
    assert not silent, "\n".join(silent)


def test_no_module_is_named_after_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "data", "base"}
    assert not [str(path) for path in _modules() if path.stem in empty]


def test_every_todo_has_an_issue() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX)\b(?!.*#\d)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*_modules(), *sorted((ROOT / "tests").rglob("*.py"))]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_room_lists_its_surface() -> None:
    rooms = [path for path in SOURCE.iterdir() if (path / "__init__.py").is_file()]
    for room in rooms:
        tree = _tree(room / "__init__.py")
        targets = [
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        assert "__all__" in targets or room.name == "testing", f"{room.name} has no __all__"


@pytest.mark.parametrize("entry", ["tidegate.cli", "tidegate.runtime.launcher"])
def test_the_way_to_a_role_imports_nothing_heavy(entry: str) -> None:
    """What the launcher's process imported would miss the role's patch."""
    program = (
        f"import sys, {entry}; "
        "bad = {'gevent', 'celery', 'sqlalchemy', 'ssl', 'urllib3', 'gunicorn', 'grpc', 'click'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
