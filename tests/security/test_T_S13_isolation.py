"""What a plugin that looks around can see and touch, rung by rung (T-S13, T-S20).

A spy is installed beside another plugin on a host of its own data folder. What needs root is run
when the suite is; the same rungs are run for a plain user where root lends one.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.acting import install, until
from tests.hosting import VARIABLES, Running, running_host
from tests.runtime.processes import gone
from tidegate.errors import StartRefused
from tidegate.hosts.isolation import Isolation
from tidegate.hosts.processes import Families, scan
from tidegate.hosts.uids import Uids
from tidegate.settings import Settings

pytestmark = pytest.mark.limit(90, "plugins are started")
ROOT = os.getuid() == 0
RUNGS = [1, 2, 3] if ROOT else [1, 3]


class Spied:
    """What the spy found on a running host, and where the host keeps things."""

    def __init__(self, running: Running, identifier: str, other: str, rung: int) -> None:
        settings = running.settings
        self.key = settings.home.keys / "server.key"
        self.key.parent.mkdir(exist_ok=True)
        self.key.write_text("canary")
        self.key.chmod(0o600)
        other_folder = settings.working_path / other.replace(":", "-")
        others_home = settings.working_path / ".scratch" / other.partition(":")[0] / "home"
        self.secret = {
            "keys": str(self.key),
            "other": str(other_folder / "main.py"),
            "home": str(others_home),
            "data": str(settings.home.root),
        }
        paths = list(self.secret.values())
        # Not at rung 1: there it would hold on to this very process, and stop it.
        host = os.getpid() if rung >= 2 else 0
        call = running.call(identifier, "spy", paths=paths, host=host).wait()
        assert call.error is None, call.error
        self.found: dict[str, Any] = json.loads(call.texts[0])
        self.read = {name: self.found["read"][path] for name, path in self.secret.items()}
        self.working_path = settings.working_path
        self.instance = running.control("status", identifier=identifier).chunks[0]["instances"][0]


@pytest.fixture(scope="module", params=RUNGS)
def rung(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def spied(rung: int, tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp(f"rung{rung}")
    environ = {**os.environ, "DIFY_INNER_API_KEY": "canary"}
    with running_host(home, environ=environ, TIDEGATE_ISOLATION=rung) as running:
        identifier = install(running, home, own_name=True)
        other = install(running, home, own_name=True)
        yield Spied(running, identifier, other, rung)


only_from_rung_2 = pytest.mark.parametrize("rung", [one for one in RUNGS if one > 1], indirect=True)
only_at_rung_3 = pytest.mark.parametrize("rung", [3], indirect=True)


def denied(answer: str) -> bool:
    return answer.startswith("no: ")


def test_T_S13_every_plugin_gains_no_privileges(spied):
    assert "NoNewPrivs:\t1" in spied.found["status"]


def test_the_rung_is_told_per_plugin(spied, rung):
    assert spied.instance["rung"] == rung
    assert (spied.instance["uid"] is not None) == (ROOT and rung >= 2)


def test_a_plugin_can_write_where_it_may(spied, rung):
    for place in ("umask_home", "scratch"):
        assert spied.found[place].startswith("yes"), place
    assert denied(spied.found["cwd"]) == (rung == 3), "its code cannot be changed at rung 3"


def test_T_S13_only_the_listed_variables_reach_a_plugin_at_every_rung(spied):
    """The host has others, the key to Dify among them."""
    assert "DIFY_INNER_API_KEY" not in VARIABLES
    assert set(spied.found["variables"]) <= VARIABLES


def test_T_S14_a_plugin_that_crashes_dumps_no_memory(spied):
    assert spied.found["core"] == [0, 0]


@pytest.mark.parametrize("rung", [1], indirect=True)
def test_T_S13_at_rung_1_a_plugin_is_its_hosts_own_user(spied):
    """Told as it is (docs/security.md, "Same user"), so that nobody takes this rung for a wall."""
    assert spied.found["uid"] == os.getuid()
    assert "canary" in spied.read["keys"]
    for name in ("other", "data"):
        assert spied.read[name].startswith("yes: "), name


@only_from_rung_2
def test_T_S13_no_key_and_nothing_of_another_plugin_from_rung_2(spied):
    for name, answer in spied.read.items():
        assert "canary" not in answer
        hollow = answer == "yes: []"  # at rung 3 the folder is an empty one
        assert denied(answer) or hollow, (name, answer)


@only_from_rung_2
def test_T_S13_the_host_is_closed_from_rung_2(spied):
    for door in ("environ", "memory", "descriptors", "ptrace", "signal"):
        assert denied(spied.found[door]), (door, spied.found[door])


@only_from_rung_2
def test_T_S20_a_plugin_cannot_become_somebody_else_or_mount_from_rung_2(spied):
    assert denied(spied.found["mount"])
    assert denied(spied.found["setuid"])
    assert spied.found["groups"] in ([], [os.getgid()], os.getgroups())


@only_from_rung_2
def test_the_library_that_plugins_share_cannot_be_written_from_rung_2(spied):
    assert denied(spied.found["library"])


@only_at_rung_3
def test_at_rung_3_tmp_is_its_own_and_empty(spied):
    shown = set(ast.literal_eval(spied.found["tmp"].removeprefix("yes: ")))
    assert shown <= {"mine", spied.working_path.name}  # scratch folder, and way to its files


@only_at_rung_3
def test_T_S13_at_rung_3_nothing_is_there_but_the_system(spied):
    assert set(spied.found["root"]) & {"root", "home", "run", "work", "srv", "opt"} <= own_path(
        spied
    )
    assert "run" not in spied.found["root"]


def own_path(spied: Spied) -> set[str]:
    """The first folder on the way to what a plugin must see: interpreter, library, its files."""
    needed = (sys.base_prefix, str(spied.working_path))
    return {Path(os.path.realpath(path)).parts[1] for path in needed}


@only_at_rung_3
def test_T_S13_at_rung_3_a_plugin_sees_its_own_processes_only(spied):
    assert spied.found["pid"] == 2, "process 1 is the keeper"
    assert max(spied.found["processes"]) < 20
    assert spied.instance["pid"] > 20, "the number that the host knows is the host's"


@only_at_rung_3
@pytest.mark.parametrize("door", ["mount", "ptrace", "look", "keyctl", "unshare", "raw", "packets"])
def test_T_S20_what_leads_out_of_a_sandbox_is_refused_at_rung_3(spied, door):
    assert denied(spied.found[door]), spied.found[door]


def test_T_K4_T_K5_at_every_rung_what_a_plugin_started_is_gone_and_told(rung, tmp_path):
    """A grandchild that left session and parent, then SIGKILL: the exit is told as it was."""
    with running_host(tmp_path, TIDEGATE_ISOLATION=rung, TIDEGATE_STOP_GRACE=1) as running:
        identifier = install(running, tmp_path)
        call = running.call(identifier, "escape", pause=30).first()
        instance = running.instance(identifier)
        leader, instance.memory = instance.pid, 0
        until(lambda: instance.memory)  # the host has looked, and knows whose these are
        family = Families().sort(scan(), [leader])[leader]
        strays = [one.pid for one in family if one.pid != leader]
        assert len(strays) >= 3
        os.kill(leader, signal.SIGKILL)
        died = call.wait()
        assert died.error_type == "PluginDied"
        assert died.error["args"]["signal"] == signal.SIGKILL
        assert gone(strays, seconds=2.0)
        # an output that only a child has open is seen through every wall
        mute = running.call(identifier, "close_stdout", child=True).wait(10)
        assert "closed its standard output" in mute.error["message"]
        # and it can be stopped by SIGTERM, which process 1 of a namespace would not hear
        assert running.call(identifier, "echo", text="x").wait().error is None
        begun = time.monotonic()
        running.host.stop_plugin(identifier, grace=0.0)
        assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("higher", [rung for rung in RUNGS if rung > 1])
def test_T_K9_T_R5_at_the_higher_rungs_a_limit_is_told_as_what_it_is(tmp_path, higher):
    limits = f"tidegate/misbehave:PLUGIN_MEMORY={200 << 20}:PLUGIN_PROCESSES=20"
    with running_host(tmp_path, TIDEGATE_ISOLATION=higher, TIDEGATE_PER_PLUGIN=limits) as running:
        identifier = install(running, tmp_path)
        for deed, given, limit in (
            ("eat", {"size": 400 << 20}, "plugin_oom"),
            ("eat", {"size": 400 << 20, "child": True}, "plugin_oom"),
            ("breed", {"count": 40}, "plugin_limit"),
        ):
            died = running.call(identifier, deed, **given).wait()
            assert died.error_type == "PluginDied"
            assert died.error["args"]["limit"] == limit
            assert died.error["args"]["oom"] == (limit == "plugin_oom")
        assert running.call(identifier, "echo", text="back").wait().texts == ["back"]


def test_the_scratch_folder_is_empty_at_each_start_and_goes_with_the_plugin(tmp_path):
    with running_host(tmp_path) as running:
        identifier = install(running, tmp_path, own_name=True)
        around = running.settings.working_path / ".scratch" / identifier.partition(":")[0]
        assert running.call(identifier, "spy", paths=[]).wait().error is None
        (used,) = around.glob("tmp-*/mine")
        running.host.stop_plugin(identifier, grace=0.0)
        assert not used.parent.exists()
        assert (around / "home/mine").exists(), "what it keeps is the plugin's, not a process's"
        running.control("remove", identifier=identifier)
        assert not around.exists()


def test_two_plugins_are_two_users_and_the_same_ones_again(tmp_path):
    settings = Settings.load({"TIDEGATE_HOME": str(tmp_path)})
    settings.working_path.mkdir()
    first, second = Uids(settings).of("acme/x"), Uids(settings).of("acme/y")
    assert first != second
    assert (Uids(settings).of("acme/y"), Uids(settings).of("acme/x")) == (second, first)
    assert first >= 200000


def test_a_rung_that_cannot_be_had_is_refused_with_its_reason(tmp_path):
    given = {"TIDEGATE_HOME": str(tmp_path), "TIDEGATE_ISOLATION": "3"}
    given["TIDEGATE_PLUGIN_UIDS"] = "nonsense"
    with pytest.raises(StartRefused, match=r"TIDEGATE_ISOLATION=3 .*TIDEGATE_PLUGIN_UIDS"):
        assert Isolation(Settings.load(given), {}).rung


def test_auto_takes_the_highest_that_can_be_had_and_says_why_not_more(tmp_path):
    given = {"TIDEGATE_HOME": str(tmp_path), "TIDEGATE_ISOLATION": "auto"}
    given["TIDEGATE_PLUGIN_UIDS"] = "nonsense"
    isolation = Isolation(Settings.load(given), {})
    assert isolation.rung == 1
    assert set(isolation.report()["why_not"]) == {"2", "3"}
    assert Path(given["TIDEGATE_HOME"]).exists()
