"""Which plugins may share an environment."""

import pytest

from tidegate.environments.closure import read_project
from tidegate.errors import EnvironmentFailed
from tidegate.settings import Settings

PYPROJECT = """
[project]
name = "{name}"
version = "{version}"
requires-python = ">=3.12"
dependencies = [{dependencies}]
{more}
"""
LOCK = """
version = 1
requires-python = ">=3.12"

[[package]]
name = "{name}"
version = "{version}"
source = {{ virtual = "." }}
dependencies = [{{ name = "six" }}]

[[package]]
name = "six"
version = "{six}"
source = {source}
"""
REGISTRY = '{ registry = "https://index.example/simple" }'


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, *, name="a", version="1.0", six="1.17.0", source=REGISTRY, more="", lock=True):
    text = PYPROJECT.format(name=name, version=version, dependencies='"six"', more=more)
    (folder / "pyproject.toml").write_text(text)
    if lock:
        (folder / "uv.lock").write_text(
            LOCK.format(name=name.replace("_", "-"), version=version, six=six, source=source)
        )


def read(folder, checksum="c1", **variables):
    settings = Settings.load({name.upper(): value for name, value in variables.items()})
    return read_project(folder, settings, checksum, settings.pip_mirror_url)


def closure(folder, checksum="c1", *, variables=None, **changes):
    write(folder, **changes)
    return read(folder, checksum, **(variables or {})).closure


def test_name_version_and_checksum_of_the_plugin_do_not_matter(folder):
    one = closure(folder)
    assert closure(folder, "c2", name="other_name", version="2.0") == one


@pytest.mark.parametrize(
    "changes",
    [
        {"six": "1.16.0"},
        {"more": "[tool.uv]\nno-binary = true"},
        {"source": '{ directory = "vendor/six" }'},
        {"lock": False},
        {"variables": {"pip_extra_args": "--no-build"}},
        {"variables": {"plugin_ignore_uv_lock": "true"}},
    ],
)
def test_whatever_changes_what_is_installed_matters(folder, tmp_path_factory, changes):
    one = closure(folder)
    assert closure(tmp_path_factory.mktemp("other"), **changes) != one


def test_local_sources_make_the_closure_the_packages_own(folder):
    local = '{ directory = "vendor/six" }'
    assert closure(folder, "c1", source=local) != closure(folder, "c2", source=local)
    assert read(folder).local


def test_the_lock_is_obeyed_unless_told_otherwise(folder):
    write(folder)
    assert read(folder).kind == "lock"
    assert read(folder, plugin_ignore_uv_lock="true").kind == "project"
    assert read(folder).requires_python == ">=3.12"


def test_requirements_are_used_with_a_mirror_or_when_there_is_nothing_else(folder):
    write(folder)
    (folder / "requirements.txt").write_text("six==1.17.0\n# comment\n")
    assert read(folder).kind == "lock"
    assert read(folder, pip_mirror_url="https://mirror.example").kind == "requirements"
    assert read(folder, pip_mirror_url="https://mirror.example").requires_python == ">=3.12"
    (folder / "pyproject.toml").unlink()
    assert read(folder).kind == "requirements"
    assert not read(folder).local


@pytest.mark.parametrize("line", ["-r other.txt", "./vendor/six", "six @ file:vendor/six.whl"])
def test_requirements_that_reach_into_the_folder_are_local(folder, line):
    (folder / "requirements.txt").write_text(f"{line}\n")
    assert read(folder).local


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "neither pyproject.toml nor requirements.txt found"),
        ({"pyproject.toml": "[project"}, "pyproject.toml cannot be read"),
        ({"pyproject.toml": "[project]\nname='x'", "uv.lock": "\x00"}, "uv.lock cannot be read"),
        ({"pyproject.toml": "a = " + "[" * 5000 + "]" * 5000}, "pyproject.toml cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_named(folder, files, words):
    for name, content in files.items():
        (folder / name).write_text(content)
    with pytest.raises(EnvironmentFailed, match=words):
        read(folder)
