"""What a plugin that looks around can see and touch, rung by rung (T-S13, T-S20).

A spy is installed beside another plugin on a host of its own data folder. What needs root is run
when the suite is; the same rungs are run for a plain user where root lends one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults.acting import install
from tests.hosting import Running, running_host
from tidegate.errors import StartRefused
from tidegate.hosts.isolation import Isolation, Uids
from tidegate.settings import Settings

pytestmark = pytest.mark.limit(90, "plugins are started")
ROOT = os.getuid() == 0
RUNGS = [1, 2, 3] if ROOT else [1, 3]


class Spied:
    """What the spy found on a running host, and where the host keeps things."""

    def __init__(self, running: Running, identifier: str, other: str) -> None:
        settings = running.settings
        self.key = settings.home.keys / "server.key"
        self.key.parent.mkdir(exist_ok=True)
        self.key.write_text("canary")
        self.key.chmod(0o600)
        other_folder = settings.working_path / other.replace(":", "-")
        others_home = settings.working_path / ".homes" / other.partition(":")[0]
        self.secret = {
            "keys": str(self.key),
            "other": str(other_folder / "main.py"),
            "home": str(others_home),
            "data": str(settings.home.root),
        }
        call = running.call(identifier, "spy", paths=list(self.secret.values())).wait()
        assert call.error is None, call.error
        self.found: dict[str, Any] = json.loads(call.texts[0])
        self.read = {name: self.found["read"][path] for name, path in self.secret.items()}
        self.instance = running.control("status", identifier=identifier).chunks[0]["instances"][0]


@pytest.fixture(scope="module", params=RUNGS)
def rung(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def spied(rung: int, tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp(f"rung{rung}")
    with running_host(home, TIDEGATE_ISOLATION=rung) as running:
        identifier = install(running, home, own_name=True)
        other = install(running, home, own_name=True)
        yield Spied(running, identifier, other)


def denied(answer: str) -> bool:
    return answer.startswith("no: ")


def test_T_S13_every_plugin_gains_no_privileges(spied):
    assert "NoNewPrivs:\t1" in spied.found["status"]


def test_the_rung_is_told_per_plugin(spied, rung):
    assert spied.instance["rung"] == rung
    assert (spied.instance["uid"] is not None) == (ROOT and rung >= 2)


def test_a_plugin_can_write_where_it_may(spied):
    for place in ("umask_home", "scratch", "cwd"):
        assert spied.found[place].startswith("yes"), place


def test_T_S13_no_key_and_nothing_of_another_plugin_from_rung_2(spied, rung):
    if rung >= 2:
        for name, answer in spied.read.items():
            assert "canary" not in answer
            hollow = answer == "yes: []"  # at rung 3 the folder is an empty one
            assert denied(answer) or hollow, (name, answer)


def test_T_S13_the_host_is_closed_from_rung_2(spied, rung):
    if rung >= 2:
        for door in ("environ", "memory", "descriptors", "ptrace"):
            assert denied(spied.found[door]), (door, spied.found[door])


def test_T_S20_a_plugin_cannot_become_somebody_else_or_mount_from_rung_2(spied, rung):
    if rung >= 2:
        assert denied(spied.found["mount"])
        assert denied(spied.found["setuid"])
        assert spied.found["groups"] in ([], [os.getgid()], os.getgroups())


def test_the_library_that_plugins_share_cannot_be_written_from_rung_2(spied, rung):
    if rung >= 2:
        assert denied(spied.found["library"])


def test_at_rung_3_tmp_is_its_own(spied, rung):
    if rung == 3:
        shown = json.loads(spied.found["tmp"].removeprefix("yes: ").replace("'", '"'))
        assert not [name for name in shown if name.startswith("pytest")]


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
