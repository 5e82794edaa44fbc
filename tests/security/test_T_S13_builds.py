"""What the code of a package sees and may touch while it is built, rung by rung.

A package that is there as source only brings a build backend that looks around and writes what it
found into the module that it builds. No network: the backend needs nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tidegate.environments import Environments
from tidegate.environments.tool import Tools
from tidegate.errors import EnvironmentFailed
from tidegate.hosts.isolation import Isolation
from tidegate.settings import Settings

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="other users are root's to give")

PYPROJECT = """
[project]
name = "spy"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import glob, json, os, zipfile

def tried(deed):
    try:
        return f"yes: {deed()!r}"
    except OSError as error:
        return f"no: {error.strerror}"

def build_wheel(folder, settings=None, metadata=None):
    working = WORKING
    found = {
        "uid": os.getuid(),
        "environ": sorted(os.environ),
        "key": tried(lambda: open(f"{working}/../keys/server.key").read()),
        "cache": tried(lambda: open(f"{working}/.uv-cache-builds/poison", "w").close()),
        "compiled": tried(lambda: open(f"{working}/.compiled/poison", "w").close()),
        "others": tried(lambda: os.listdir(f"{working}/.environments/other")),
        "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    }
    name = "spy-1.0-py3-none-any.whl"
    info = "spy-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.writestr("spy.json", json.dumps(found))
        archive.writestr("spy.py", "VERSION = 1\\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: spy\\nVersion: 1.0\\n")
        tags = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "spy.py,,\\n")
    return name
"""


@pytest.fixture(scope="module", params=[2, 3])
def rung(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def built(rung: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], int]:
    """The environment with the spy in it, and what it found."""
    root = tmp_path_factory.mktemp(f"build{rung}")
    settings = Settings.load({"TIDEGATE_HOME": str(root), "TIDEGATE_ISOLATION": str(rung)})
    settings.home.keys.mkdir(parents=True)
    (settings.home.keys / "server.key").write_text("canary")
    (settings.home.keys / "server.key").chmod(0o600)
    (settings.working_path / ".environments/other").mkdir(mode=0o700, parents=True)
    environ = {
        "PATH": os.environ["PATH"],
        "SERVER_KEY": "canary",
        "UV_NO_INDEX": "true",
        "UV_FIND_LINKS": str(source_package(root, settings.working_path)),
    }
    environments = Environments(settings, environ)
    isolation = Isolation(settings, environ)
    environments.confine(lambda: isolation.confine)
    plugin = root / "plugin"
    plugin.mkdir()
    (plugin / "requirements.txt").write_text("spy==1.0\n")
    found = environments.ensure(
        plugin,
        python=f"3.{sys.version_info.minor}",
        checksum="0" * 64,
        user="u",
        progress=lambda step, message: None,
    )
    (said,) = found.folder.rglob("spy.json")
    return found.folder, json.loads(said.read_text()), os.getuid()


def source_package(root: Path, working: Path) -> Path:
    """A folder with the source distribution."""
    folder = root / "sources"
    content = folder / "spy-1.0"
    content.mkdir(parents=True)
    (content / "pyproject.toml").write_text(PYPROJECT)
    (content / "backend.py").write_text(BACKEND.replace("WORKING", repr(str(working)), 1))
    (content / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n")
    with tarfile.open(folder / "spy-1.0.tar.gz", "w:gz") as archive:
        archive.add(content, "spy-1.0")
    return folder


def test_T_S13_a_build_is_another_user_and_sees_no_key(built, rung):
    _, found, host = built
    assert found["uid"] not in (0, host)
    assert found["key"].startswith("no: ")
    assert not [name for name in found["environ"] if "KEY" in name]
    if rung == 3:
        assert found["processes"] < 20


def test_T_S13_a_build_cannot_reach_what_others_are_built_from(built):
    for place in ("cache", "compiled", "others"):
        assert built[1][place].startswith("no: "), place


def test_what_was_built_is_the_hosts_and_others_can_only_read_it(built):
    folder, _, host = built
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        assert status.st_uid == host, path
        assert path.is_symlink() or not status.st_mode & 0o022, path
    assert list(folder.rglob("__pycache__/spy.*.pyc"))


def test_nothing_of_a_build_is_left_beside_it(built):
    working = built[0].parent.parent
    assert list((working / ".scratch").iterdir()) == []
    assert not [one.name for one in (working / ".environments").glob(".*")]


def test_a_tool_behind_walls_is_still_stopped_when_it_says_nothing(rung, tmp_path):
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path), "TIDEGATE_ISOLATION": str(rung)})
    settings.working_path.mkdir(parents=True)
    isolation = Isolation(settings, {})
    tools = Tools(settings, {"PATH": "/usr/bin:/bin"})
    tools.confine = lambda: isolation.confine
    with pytest.raises(EnvironmentFailed, match="no activity for 1 seconds"):
        tools.run(["/bin/sleep", "60"], folder=Path("/"), on_line=print, silence=1.0, shown={})
