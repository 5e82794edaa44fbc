"""Limits by cgroup v2, on a tree of plain files that stands for the kernel's."""

import pytest

from tidegate.hosts.cgroups import Cgroup, why_not
from tidegate.settings import Settings


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    return tmp_path


def settings(**variables):
    return Settings.load({f"TIDEGATE_PLUGIN_{name}": str(one) for name, one in variables.items()})


def test_a_delegated_folder_will_do_and_its_controllers_are_switched_on(tree):
    assert why_not(tree) == ""
    assert (tree / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_what_is_missing_is_said(tree, tmp_path):
    (tree / "cgroup.controllers").write_text("cpu memory\n")
    assert "no controller pids" in why_not(tree)
    assert "No such file" in why_not(tmp_path / "nowhere")


def test_limits_are_written_in_the_kernels_words(tree):
    group = Cgroup.make(tree, "acme/x", settings(MEMORY=1 << 29, PROCESSES=64, CPUS=1.5))
    assert group.folder.name.startswith("acme-x-")
    assert (group.folder / "memory.max").read_text() == str(1 << 29)
    assert (group.folder / "memory.swap.max").read_text() == "0"
    assert (group.folder / "pids.max").read_text() == "64"
    assert (group.folder / "cpu.max").read_text() == "150000 100000"


def test_without_a_limit_nothing_is_written_and_two_instances_have_two_groups(tree):
    groups = [Cgroup.make(tree, "acme/x", settings(PROCESSES=0)) for _ in range(2)]
    assert groups[0].folder != groups[1].folder
    assert list(groups[0].folder.iterdir()) == []
    groups[0].remove()
    assert not groups[0].folder.exists()
    groups[1].kill()
    assert (groups[1].folder / "cgroup.kill").read_text() == "1"


def test_kills_for_memory_are_counted(tree):
    group = Cgroup.make(tree, "acme/x", settings())
    assert group.oom_kills == 0
    (group.folder / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n")
    assert group.oom_kills == 1
