"""Environments built by the real uv, from wheels that the test makes: no network."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import gevent
import pytest

from tidegate.environments import Environments, compiler
from tidegate.environments.tool import Tools
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PYPROJECT = """
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.12"
dependencies = ["{dependency}"]
"""


def wheel(folder, name, version):
    """A wheel with one module that knows its version."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        names = [f"{name}.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"]
        archive.writestr(f"{info}/RECORD", "".join(f"{one},,\n" for one in names))
    return path


class Site:
    """A machine with an index of two wheels, and environments below a folder of its own."""

    def __init__(self, tmp_path, **variables):
        self.root = tmp_path
        self.wheels = tmp_path / "wheels"
        for version in ("1.0", "2.0"):
            wheel(self.wheels, "tiny", version)
        self.environ = {
            **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME")},
            "UV_FIND_LINKS": str(self.wheels),
            "UV_NO_INDEX": "true",
        }
        given = {"TIDEGATE_HOME": str(tmp_path / "home"), "PIP_VERBOSE": "false"}
        given |= {name.upper(): value for name, value in variables.items()}
        self.settings = Settings.load(given)
        self.environments = Environments(self.settings, self.environ)
        self.place = self.settings.working_path / ".environments"
        self.said = []

    def plugin(self, name, dependency="tiny==1.0", *, lock=True):
        folder = self.root / name
        folder.mkdir()
        text = PYPROJECT.format(name=name, dependency=dependency)
        (folder / "pyproject.toml").write_text(text)
        (folder / "main.py").write_text("import tiny\n")
        if lock:
            tools = Tools(self.settings, self.environ)
            arguments = ["lock", "--python", sys.executable]
            tools.run_uv(arguments, folder=folder, on_line=self.said.append)
        return folder

    def ensure(self, folder, user=""):
        self.said = []
        return self.environments.ensure(
            folder,
            python=MINOR,
            checksum=hashlib.sha256(folder.name.encode()).hexdigest(),
            user=user or folder.name,
            progress=lambda step, message: self.said.append(message),
        )

    @property
    def builds(self):
        return sum(message.startswith("creating an environment") for message in self.said)

    def left_over(self):
        return [path.name for path in self.place.iterdir() if path.name.startswith(".")]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def version_in(environment):
    command = [environment.python, "-c", "import tiny, sys; print(tiny.VERSION, sys.prefix)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_the_lock_is_obeyed_and_the_result_is_compiled_and_named_by_its_closure(site):
    folder = site.plugin("a")
    environment = site.ensure(folder)
    assert version_in(environment) == ["1.0", str(environment.folder)]
    assert environment.folder == site.place / environment.key
    assert list(environment.folder.rglob("__pycache__/tiny.*.pyc"))
    assert site.left_over() == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "main.py",
        "pyproject.toml",
        "uv.lock",
    ]


def compiled(environment, module):
    (path,) = environment.folder.rglob(f"__pycache__/{module}.*.pyc")
    return path


def test_a_text_that_was_compiled_for_one_environment_is_not_compiled_for_another(site):
    wheel(site.wheels, "same", "1.0")  # under another name, with the text of tiny 1.0
    wheel(site.wheels, "more", "3.0")
    one = site.ensure(site.plugin("a"))
    other = site.ensure(site.plugin("b", "same==1.0"))
    third = site.ensure(site.plugin("c", "more==3.0"))
    assert compiled(one, "tiny").samefile(compiled(other, "same"))
    assert not compiled(one, "tiny").samefile(compiled(third, "more"))
    code = "import same; print(same.VERSION, same.__file__)"
    said = subprocess.run([other.python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == "1.0"
    assert str(other.folder) in said.stdout, "not the place where it was compiled"


def test_a_long_compilation_says_how_far_it_is(tmp_path):
    """Else a big library on a busy machine is taken for a build that is stuck."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(1050):
        (tree / f"m{number}.py").touch()
    command = [sys.executable, "-I", "-S", compiler.__file__, tree, tmp_path / "store", "2"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = sorted(int(line.split()[1]) for line in said.splitlines())
    assert told == [999, 1000]


def test_compiled_code_that_nobody_asked_for_in_a_month_goes(site):
    environment = site.ensure(site.plugin("a"))
    kept = list((site.settings.working_path / ".compiled").glob("*/*"))
    assert kept
    for path in kept:
        os.utime(path, (0, 0))
    site.environments.sweep()
    assert not list((site.settings.working_path / ".compiled").glob("*/*"))
    assert compiled(environment, "tiny").exists(), "what was built is whole"


def test_plugins_with_one_closure_share_and_the_second_is_at_once(site):
    one = site.ensure(site.plugin("a"))
    two = site.ensure(site.plugin("b"))
    assert one == two
    assert site.builds == 0
    other = site.ensure(site.plugin("c", "tiny==2.0"))
    assert other.key != one.key
    assert version_in(other)[0] == "2.0"


def test_T_I2_twenty_requests_at_once_are_one_build(site):
    folder = site.plugin("a")
    site.said = said = []
    waiting = [
        gevent.spawn(
            site.environments.ensure,
            folder,
            python=MINOR,
            checksum="c",
            user=f"user{number}",
            progress=lambda step, message: said.append(message),
        )
        for number in range(20)
    ]
    gevent.joinall(waiting, raise_error=True)
    assert len({one.value for one in waiting}) == 1
    assert sum(message.startswith("creating") for message in said) == 1


ASKING = """
import json, sys
from pathlib import Path
import gevent
from tests.unit.environments.test_builds import MINOR
from tidegate.environments import Environments
from tidegate.settings import Settings
given, environ, folder = json.loads(sys.argv[1])
said = []
environments = Environments(Settings.load(given), environ)
print("ready", flush=True)
sys.stdin.readline()
waiting = [
    gevent.spawn(
        environments.ensure, Path(folder), python=MINOR, checksum="c",
        user=f"{sys.argv[2]}-{number}", progress=lambda step, message: said.append(message),
    )
    for number in range(5)
]
gevent.joinall(waiting, raise_error=True)
[key] = {one.value.key for one in waiting}
print(json.dumps([key, sum(one.startswith("creating an environment") for one in said)]))
"""


def test_T_I2_twenty_requests_in_four_processes_are_one_build(site):
    """As hosts that share a working path: a lock of the file system makes them one."""
    folder = site.plugin("a")
    given = {"TIDEGATE_HOME": str(site.settings.home.root), "PIP_VERBOSE": "false"}
    told = json.dumps([given, site.environ, str(folder)])
    script = site.root / "asking.py"
    script.write_text(ASKING)
    root = Path(__file__).parents[3]
    askers = [
        subprocess.Popen(
            [sys.executable, "-m", "gevent.monkey", str(script), told, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for number in range(4)
    ]  # fmt: skip
    for one in askers:
        assert one.stdout.readline() == "ready\n"
    said = [json.loads(one.communicate("go\n")[0]) for one in askers]
    assert [one.returncode for one in askers] == [0] * 4
    assert len({key for key, _ in said}) == 1
    assert sum(builds for _, builds in said) == 1
    assert site.left_over() == []


def test_another_process_that_builds_the_same_is_waited_for(site):
    folder = site.plugin("a")
    key = site.ensure(folder).key
    (site.place / key / "tidegate.json").unlink()
    with (site.place / f"{key}.lock").open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        waiting = gevent.spawn(site.ensure, folder)
        gevent.sleep(0.3)
        assert not waiting.ready()
        assert site.builds == 0
    waiting.get(timeout=20)
    assert site.builds == 1


def test_T_I1_a_build_that_was_killed_is_thrown_away_and_done_again(site):
    folder = site.plugin("a")
    waiting = gevent.spawn(site.ensure, folder)
    while not any(path.name.startswith(".tmp-") for path in site.place.glob(".tmp-*/*")):
        if list(site.place.glob(".tmp-*")):
            break
        gevent.sleep(0.001)
    waiting.kill()
    assert site.left_over() == []
    (site.place / f".tmp-{'0' * 32}").mkdir()
    environment = site.ensure(folder)
    assert version_in(environment)[0] == "1.0"


def test_T_K8_a_new_host_sweeps_up_after_a_killed_one_but_not_after_a_busy_one(site):
    site.place.mkdir(parents=True)
    for name in (".tmp-aa", ".tmp-aa-project", ".gone-bb-1234", ".tmp-cc", "dd"):
        (site.place / name / "lib").mkdir(parents=True)
    with (site.place / "cc.lock").open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        site.environments.sweep()
    left = sorted(path.name for path in site.place.iterdir() if path.is_dir())
    assert left == [".tmp-cc", "dd"]


def test_an_environment_without_its_interpreter_is_built_again(site):
    folder = site.plugin("a")
    environment = site.ensure(folder)
    environment.python.unlink()
    assert version_in(site.ensure(folder))[0] == "1.0"
    assert site.builds == 1


def test_what_uv_says_is_the_error_and_nothing_is_left(site):
    folder = site.plugin("a", "missing==1.0", lock=False)
    with pytest.raises(EnvironmentFailed) as caught:
        site.ensure(folder)
    assert "uv sync: exit code 1" in caught.value.message
    assert "your project depends on missing==1.0" in caught.value.message
    assert site.left_over() == []
    assert not list(site.place.glob("*/tidegate.json"))


def test_without_a_lock_it_is_resolved_and_the_plugins_folder_stays_as_it_was(site):
    folder = site.plugin("a", "tiny", lock=False)
    assert version_in(site.ensure(folder))[0] == "2.0"
    assert sorted(path.name for path in folder.iterdir()) == ["main.py", "pyproject.toml"]
    site.ensure(folder)
    assert site.builds == 0


def test_requirements_come_from_the_mirror_when_one_is_set(tmp_path):
    index = tmp_path / "index/tiny"
    index.mkdir(parents=True)
    path = wheel(tmp_path / "mirrored", "tiny", "3.0")
    (index / "index.html").write_text(f'<a href="{path.as_uri()}">{path.name}</a>')
    site = Site(tmp_path, pip_mirror_url=(tmp_path / "index").as_uri())
    del site.environ["UV_NO_INDEX"], site.environ["UV_FIND_LINKS"]
    site.environments = Environments(site.settings, site.environ)
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name="a", dependency="tiny==1.0"))
    (folder / "requirements.txt").write_text("tiny\n")
    assert version_in(site.ensure(folder))[0] == "3.0"


def test_an_environment_goes_with_its_last_user(site):
    one, two = site.plugin("a"), site.plugin("b")
    environment = site.ensure(one)
    site.ensure(two)
    site.environments.release("a")
    assert environment.folder.exists()
    site.environments.release("b")
    site.environments.release("b")
    assert not environment.folder.exists()
    assert site.left_over() == []
    assert version_in(site.ensure(one))[0] == "1.0"


def test_a_former_environment_stays_while_the_host_runs_and_goes_at_its_next_start(
    site, monkeypatch
):
    """An instance may run in it: a Python that came meanwhile gives the next one another."""
    folder = site.plugin("a")
    old = site.ensure(folder)
    monkeypatch.setattr("tidegate.environments.builds._RECIPE", "another")
    new = site.ensure(folder)
    assert site.builds == 1
    assert old.folder.is_dir()
    site.environments.release_former()
    assert new.folder.is_dir()
    assert not old.folder.exists()
    assert [path.name for path in site.place.glob("*.users")] == [f"{new.key}.users"]


def test_the_environment_that_was_given_last_stays_though_it_is_the_older(site, monkeypatch):
    folder = site.plugin("a")
    old = site.ensure(folder)
    with monkeypatch.context() as patch:
        patch.setattr("tidegate.environments.builds._RECIPE", "another")
        site.ensure(folder)
    assert site.ensure(folder).key == old.key
    site.environments.release_former()
    assert [path.name for path in site.place.glob("*.users")] == [f"{old.key}.users"]


def test_plugin_code_is_compiled_and_a_file_that_does_not_compile_is_its_own_affair(site):
    folder = site.plugin("a")
    environment = site.ensure(folder)
    (folder / "wrong.py").write_text("def (:\n")
    site.environments.compile_folder(environment, folder)
    assert [path.name.split(".")[0] for path in folder.rglob("*.pyc")] == ["main"]


def test_an_operators_pattern_of_what_is_not_compiled_joins_ours(tmp_path):
    site = Site(tmp_path, python_compile_all_extra_args="-x skipped -j 1")
    folder = site.plugin("a")
    for name in ("skipped", ".venv"):
        (folder / name).mkdir()
        (folder / name / "module.py").write_text("")
    site.environments.compile_folder(site.ensure(folder), folder)
    assert [path.name.split(".")[0] for path in folder.rglob("*.pyc")] == ["main"]


def test_T_R2_a_place_that_cannot_be_written_is_said_so(site):
    folder = site.plugin("a")
    site.place.parent.mkdir(parents=True, exist_ok=True)
    site.place.write_text("in the way")
    with pytest.raises(EnvironmentFailed, match="environment cannot be written"):
        site.ensure(folder)
