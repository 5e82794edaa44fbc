"""From a folder to a package."""

import os
import random
import zipfile
from pathlib import Path

import pytest

from tests.crafted_packages import LIMIT, MANIFEST, plugin
from tidegate.errors import PackageRejected
from tidegate.packages import build_package, open_package
from tidegate.packages.ignore_rules import IgnoreRules

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "plugin", plugin())
    return tmp_path / "plugin"


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(folder: Path) -> list[str]:
    return list(open_package(build_package(folder), limit=LIMIT).names)


def test_files_are_packed_sorted_by_their_bytes(folder):
    write(folder, {"b": b"", "B": b"x", "a/é.txt": b"", "a-b": b"", "é": b""})
    (folder / "empty").mkdir()
    expected = sorted([*plugin(), "a/é.txt", "a-b", "b", "é"], key=str.encode)
    write(folder, {"b": b"again"})
    (folder / "B").unlink()
    assert names(folder) == expected


def test_equal_folders_give_equal_bytes(folder, tmp_path):
    files = list(plugin().items())
    random.shuffle(files)
    write(tmp_path / "other", dict(files))
    os.utime(tmp_path / "other" / "main.py", (1, 1))
    (tmp_path / "other" / "main.py").chmod(0o755)
    assert build_package(folder) == build_package(tmp_path / "other")


def test_package_holds_no_times_modes_or_folders(folder):
    (folder.parent / "p.zip").write_bytes(build_package(folder))
    with zipfile.ZipFile(folder.parent / "p.zip") as archive:
        entries = archive.infolist()
    assert not any(entry.is_dir() for entry in entries)
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert len({entry.date_time for entry in entries}) == 1


def test_ignore_file_is_honoured_and_the_better_one_wins(folder):
    write(folder, {".gitignore": b"main.py\n", "notes/a.md": b"", "x.log": b"", "deep/x.log": b""})
    assert "main.py" not in names(folder)
    write(folder, {".difyignore": b"# comment\n\nnotes/\n*.log\n.difyignore\n"})
    assert names(folder) == sorted([*plugin(), ".gitignore"])


def test_litter_of_tools_is_never_packed(folder):
    litter = (".venv/x", ".git/config", "tools/__pycache__/a.pyc", ".uv-cache/a", ".DS_Store")
    write(folder, dict.fromkeys(litter, b""))
    assert names(folder) == sorted(plugin())


def test_extra_files_are_added(folder):
    data = build_package(folder, extra={"requirements.txt": b"dify_plugin\n"})
    assert open_package(data, limit=LIMIT).read("requirements.txt") == b"dify_plugin\n"


def test_link_to_a_file_is_packed_as_that_file(folder):
    (folder / "link.py").symlink_to("main.py")
    package = open_package(build_package(folder), limit=LIMIT)
    assert package.read("link.py") == package.read("main.py")


def test_link_to_a_folder_or_to_nothing_is_refused(folder):
    (folder / "loop").symlink_to(folder)
    with pytest.raises(PackageRejected, match="loop is a symbolic link"):
        build_package(folder)
    (folder / "loop").unlink()
    (folder / "gone").symlink_to("nothing")
    with pytest.raises(PackageRejected, match="gone is a symbolic link"):
        build_package(folder)


def test_folder_without_manifest_is_no_plugin(tmp_path):
    with pytest.raises(PackageRejected, match=r"has no manifest\.yaml"):
        build_package(tmp_path)


def test_too_large_folder_names_its_largest_files(folder):
    write(folder, {f"big{n}.bin": os.urandom(100 * n) for n in range(1, 8)})
    with pytest.raises(PackageRejected, match=r"big7\.bin \(700 bytes\), big6\.bin"):
        build_package(folder, limit=3000)


def test_missing_icon_is_found_when_packing(folder):
    (folder / "_assets" / "icon.svg").unlink()
    with pytest.raises(PackageRejected, match=r"file not found: icon\.svg"):
        build_package(folder)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("type: plugin", "type: bundle", "type must be plugin"),
        ("version: 0.0.1\ntype", "version: 0.1\ntype", "version must look like"),
        ("label: {en_US: Weather}", "label: {zh_Hans: X}", "label.en_US is missing"),
        ("Tells the weather", "x" * 1024, "description.en_US is longer"),
        ("icon: icon.svg", f"icon: {'x' * 129}", "icon is longer"),
        ("icon: icon.svg\n", "", "icon is missing"),
        ("memory: 1048576", "memory: 0", "resource.memory"),
        ("memory: 1048576", "memory: 1, permission: {storage: {size: 5}}", "storage.size must be"),
        ("tags: [weather]", "tags: [wetter]", "tag 'wetter' is none of"),
        ("created_at: 2024-07-12T08:03:44.658609186Z\n", "", "created_at is missing"),
        ("tags: [weather]", "repo: acme\ntags: [weather]", "repo must be a URL"),
        ("meta:\n  version: 0.0.1", "meta:\n  version: 1", "meta.version must look"),
        ("arch: [amd64, arm64]", "arch: [sparc]", "meta.arch must list"),
        ("language: python", "language: go", "language must be python"),
        ("entrypoint: main", "entrypoint: ''", "meta.runner.entrypoint must have"),
        ('version: "3.12"', "version: ~", "meta.runner.version must have"),
        ("[provider/weather.yaml]", f"[{'x' * 129}]", "path longer than 128"),
    ],
)
def test_fault_in_the_manifest_is_found_when_packing(folder, old, new, fault):
    assert old in MANIFEST
    write(folder, {"manifest.yaml": MANIFEST.replace(old, new, 1).encode()})
    with pytest.raises(PackageRejected, match=fault):
        build_package(folder)


def test_all_faults_are_told_at_once(folder):
    broken = MANIFEST.replace("memory: 1048576", "memory: 0").replace("python", "go")
    write(folder, {"manifest.yaml": broken.encode()})
    with pytest.raises(PackageRejected, match=r"memory.*; .*python"):
        build_package(folder)


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("*.log", "a.log", True), ("*.log", "x/y/a.log", True), ("/a.log", "x/a.log", False),
        ("/a.log", "a.log", True), ("x/*.md", "x/a.md", True), ("x/*.md", "y/x/a.md", False),
        ("**/b", "b", True), ("**/b", "x/y/b", True), ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True), ("a/**", "a/x/y", True), ("a/**", "b/x", False),
        ("?.py", "a.py", True), ("?.py", "ab.py", False), ("[ab].py", "a.py", True),
        ("[!ab].py", "a.py", False), ("[!ab].py", "c.py", True), ("\\#x", "#x", True),
        ("# x", "# x", False), ("folder/", "folder", False), ("a+b", "a+b", True), ("[", "[", True),
    ],
)  # fmt: skip
def test_ignore_patterns_mean_what_git_says(pattern, path, excluded):
    assert IgnoreRules(pattern).excludes(path, folder=False) is excluded


def test_pattern_with_a_slash_at_the_end_is_for_folders():
    rules = IgnoreRules("folder/\n")
    assert rules.excludes("x/folder", folder=True)
    assert not rules.excludes("x/folder", folder=False)


def test_re_inclusion_is_refused(folder):
    write(folder, {".difyignore": b"*.md\n!README.md\n"})
    with pytest.raises(PackageRejected, match="re-includes"):
        build_package(folder)


@pytest.mark.parametrize(("name", "category"), [("hello", "tool"), ("parrot", "model")])
def test_sample_plugin_is_a_valid_package(name, category):
    package = open_package(build_package(EXAMPLES / name), limit=LIMIT)
    assert package.identifier.plugin_id == f"tidegate/{name}"
    assert package.category == category
    assert package.runner.version == "3.12"
    assert {"uv.lock", "pyproject.toml", "README.md", "PRIVACY.md"} <= set(package.names)
