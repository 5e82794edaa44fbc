"""Which Python is taken. The interpreters here are scripts that say they are one."""

import json
import os

import pytest

from tidegate.environments.interpreters import Interpreters
from tidegate.environments.tool import Tools
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

UV = """#!/bin/sh
echo "$@" >> {log}
{then}
"""


class Machine:
    """A machine with no Python but those that a test puts there, and a uv that cannot fetch."""

    def __init__(self, tmp_path):
        self.root = tmp_path
        self.environ = {"PATH": str(self.folder("bin")), "HOME": str(self.folder("home"))}
        self.log = tmp_path / "uv.log"
        self.variables = {"TIDEGATE_HOME": str(tmp_path / "data")}
        self.uv("echo 'no network' >&2; exit 2")

    def folder(self, name):
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def script(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def uv(self, then):
        path = self.script(self.root / "uv", UV.format(log=self.log, then=then))
        self.variables["UV_PATH"] = str(path)

    def python(self, place, version, *, name="cpython", gil=True):
        minor = ".".join(version.split(".")[:2])
        path = self.root / place / f"python{minor}"
        answer = json.dumps([version, name, str(path), str(path.parent.parent), gil])
        return self.script(path, f"#!/bin/sh\necho '{answer}'\n")

    def broken(self, place, minor):
        return self.script(self.root / place / f"python3.{minor}", "#!/bin/sh\nexit 127\n")

    def find(self, wanted, requires=">=3.10"):
        settings = Settings.load(self.variables)
        tools = Tools(settings, self.environ)
        return Interpreters(settings, self.environ, tools).find(wanted, requires)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    # The host's own interpreter is a candidate too; not on this machine.
    monkeypatch.setattr("sys._base_executable", "/nowhere/python3", raising=False)
    return Machine(tmp_path)


def test_the_manifests_version_is_taken_where_it_is_found(machine):
    machine.python("bin", "3.13.1")
    wanted = machine.python("home/.pyenv/versions/3.12.4/bin", "3.12.4")
    assert machine.find("3.12").path == wanted


def test_the_nearest_newer_that_the_project_admits_comes_next(machine):
    machine.python("bin", "3.11.2")
    machine.python("bin", "3.14.0")
    nearest = machine.python(
        "home/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin", "3.13.1"
    )
    assert machine.find("3.12").path == nearest
    assert machine.find("3.12", ">=3.14").version == "3.14.0"


def test_an_older_one_is_never_taken(machine):
    machine.python("bin", "3.11.2")
    with pytest.raises(EnvironmentFailed):
        machine.find("3.12")


def test_the_setting_comes_before_path(machine):
    machine.python("bin", "3.12.1")
    preferred = machine.python("opt/bin", "3.12.9")
    machine.variables["PYTHON_INTERPRETER_PATH"] = str(preferred)
    assert machine.find("3.12").path == preferred


def test_a_shim_that_does_not_run_is_passed_over(machine):
    machine.broken("bin", 12)
    real = machine.python("home/.pyenv/versions/3.12.4/bin", "3.12.4")
    assert machine.find("3.12").path == real


@pytest.mark.parametrize("how", [{"name": "pypy"}, {"gil": False}])
def test_other_implementations_are_passed_over(machine, how):
    machine.python("bin", "3.12.1", **how)
    real = machine.python("home/.pyenv/versions/3.12.4/bin", "3.12.4")
    assert machine.find("3.12").path == real


def test_unreleased_and_free_threaded_folders_are_not_looked_at(machine):
    machine.python("home/.pyenv/versions/3.12-dev/bin", "3.12.0")
    machine.python("home/.pyenv/versions/3.12.0t/bin", "3.12.0")
    with pytest.raises(EnvironmentFailed):
        machine.find("3.12")


def test_each_candidate_is_asked_once(machine):
    counted = machine.root / "asked"
    path = machine.python("bin", "3.12.1")
    path.write_text(path.read_text() + f"echo x >> {counted}\n")
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], text[2], text[1]]) + "\n")
    settings = Settings.load(machine.variables)
    interpreters = Interpreters(settings, machine.environ, Tools(settings, machine.environ))
    assert interpreters.find("3.12", "") == interpreters.find("3.12", "")
    assert counted.read_text() == "x\n"


def test_uv_fetches_when_nothing_is_there(machine):
    place = machine.root / "data/cwd/.python/cpython-3.12.7-linux-x86_64-gnu/bin"
    stub = machine.python("stub", "3.12.7")
    machine.uv(f"/bin/mkdir -p {place} && /bin/cp {stub} {place}/python3.12")
    found = machine.find("3.12")
    assert found.version == "3.12.7"
    assert "python install --no-bin 3.12 --system-certs" in machine.log.read_text()


def test_when_nothing_helps_the_error_says_where_it_looked_and_what_to_do(machine):
    with pytest.raises(EnvironmentFailed) as caught:
        machine.find("3.12", ">=3.12")
    message = caught.value.message
    assert "no Python 3.12 or newer (requires-python >=3.12) found" in message
    assert "PATH, pyenv and uv's own" in message
    assert "no network" in message
    assert "set PYTHON_INTERPRETER_PATH" in message


def test_a_requires_python_that_is_none_is_named(machine):
    with pytest.raises(EnvironmentFailed, match="requires-python cannot be read: 'newish'"):
        machine.find("3.12", "newish")


def test_a_uv_that_is_missing_is_named(machine):
    machine.variables["UV_PATH"] = "/nowhere/uv"
    with pytest.raises(EnvironmentFailed, match="uv is not at /nowhere/uv: set UV_PATH"):
        machine.find("3.12")
    assert not os.path.exists(machine.log)
