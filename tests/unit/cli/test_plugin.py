"""``tidegate plugin ...`` against recorded answers of the HTTP API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Recorded, Run
from tidegate.cli.target import DEFAULT_TENANT

HELLO = Path(__file__).resolve().parents[3] / "examples" / "hello"
UID = "acme/weather:0.0.1@" + "a" * 64
ROW = {
    "id": "0198c5d2-0000-7000-8000-000000000001",
    "plugin_id": "acme/weather",
    "plugin_unique_identifier": UID,
    "version": "0.0.1",
    "runtime_type": "local",
    "source": "package",
    "created_at": "2026-11-25T00:00:00Z",
}


def _task(status: str, message: str = "") -> dict[str, Any]:
    entry = {"plugin_id": "acme/weather", "status": status, "message": message}
    return {"status": status, "plugins": [entry]}


@pytest.fixture
def package(tidegate: Run, tmp_path: Path) -> Path:
    """The hello example, packed by the command."""
    path = tmp_path / "hello.difypkg"
    done = tidegate("plugin", "package", str(HELLO), "-o", str(path), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["file"] == str(path)
    assert facts["bytes"] == path.stat().st_size
    return path


def test_package_install_shows_progress_and_waits(
    tidegate: Run, server: Recorded, package: Path
) -> None:
    server.gives("POST management/install/upload/package", {"unique_identifier": UID})
    server.gives("POST management/install/identifiers", {"all_installed": False, "task_id": "t"})
    server.gives("GET management/install/tasks/t", _task("running", "building"))
    server.gives("GET management/install/tasks/t", _task("success"))
    done = tidegate("plugin", "install", str(package), "--base", server.base, SERVER_KEY="k")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{UID} installed (tenant {DEFAULT_TENANT})\n"
    assert "acme/weather: building" in done.stderr
    key, body, given = server.asked[0]
    assert key == "POST management/install/upload/package"
    assert package.read_bytes() in body
    assert given == "k"


def test_install_gives_the_reason_of_a_failed_task(
    tidegate: Run, server: Recorded, package: Path
) -> None:
    server.gives("POST management/install/upload/package", {"unique_identifier": UID})
    server.gives("POST management/install/identifiers", {"all_installed": False, "task_id": "t"})
    server.gives("GET management/install/tasks/t", _task("failed", "exit code 3:\nno module"))
    done = tidegate("plugin", "install", str(package), "--base", server.base, "--key", "k")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "tidegate: acme/weather: exit code 3: no module"


def test_install_says_when_another_version_is_there(
    tidegate: Run, server: Recorded, package: Path
) -> None:
    server.gives("POST management/install/upload/package", {"unique_identifier": UID + "b"})
    server.gives("POST management/install/identifiers", {"all_installed": True, "task_id": ""})
    server.gives("GET management/list", {"list": [ROW], "total": 1})
    done = tidegate("plugin", "install", str(package), "--base", server.base, "--key", "k")
    assert done.returncode == 1
    assert f"another version is installed ({UID})" in done.stderr


def test_upgrade_moves_from_what_is_installed_and_waits(
    tidegate: Run, server: Recorded, package: Path
) -> None:
    newer = UID.replace("0.0.1", "0.0.2")
    server.gives("POST management/install/upload/package", {"unique_identifier": newer})
    server.gives("GET management/list", {"list": [ROW], "total": 1})
    server.gives("POST management/install/upgrade", {"all_installed": False, "task_id": "t"})
    server.gives("GET management/install/tasks/t", _task("running", "building"))
    server.gives("GET management/install/tasks/t", _task("success"))
    done = tidegate("plugin", "upgrade", str(package), "--base", server.base, "--key", "k")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{newer} installed in place of {UID} (tenant {DEFAULT_TENANT})\n"
    asked = next(body for key, body, _ in server.asked if key.endswith("install/upgrade"))
    assert json.loads(asked)["original_plugin_unique_identifier"] == UID
    assert json.loads(asked)["new_plugin_unique_identifier"] == newer


def test_upgrade_of_what_is_not_installed_is_one_line(
    tidegate: Run, server: Recorded, package: Path
) -> None:
    server.gives("POST management/install/upload/package", {"unique_identifier": UID})
    server.gives("GET management/list", {"list": [], "total": 0})
    done = tidegate("plugin", "upgrade", str(package), "--base", server.base, "--key", "k")
    assert done.returncode == 1
    assert "acme/weather is not installed" in done.stderr.splitlines()[-1]


def test_status_of_one_plugin_leaves_out_those_whose_name_begins_alike(
    tidegate: Run, server: Recorded
) -> None:
    row = {"identifier": UID, "phase": "up", "instances": [], "last_error": ""}
    longer = {**row, "identifier": UID.replace("weather", "weatherman")}
    server.gives("GET plugins", [row, longer])
    for name in ("acme/weather", "acme/weather:0.0.1", UID):
        asked = ("plugin", "status", name, "--base", server.base, "--key", "k", "--json")
        assert [one["identifier"] for one in json.loads(tidegate(*asked).stdout)] == [UID]


def test_list_pages_and_prints_a_table_or_json(tidegate: Run, server: Recorded) -> None:
    server.gives("GET management/list", {"list": [ROW], "total": 2})
    server.gives("GET management/list", {"list": [{**ROW, "id": "other"}], "total": 2})
    done = tidegate("plugin", "list", "--base", server.base, "--key", "k", "--json")
    assert [row["id"] for row in json.loads(done.stdout)] == [ROW["id"], "other"]
    server.answers.clear()
    server.gives("GET management/list", {"list": [ROW], "total": 1})
    done = tidegate("plugin", "list", "--base", server.base, "--key", "k")
    assert done.stdout.splitlines()[0].split()[0] == "PLUGIN_ID"
    assert done.stdout.splitlines()[1].split()[:2] == ["acme/weather", "0.0.1"]


def test_uninstall_finds_the_installation_by_plugin_id(tidegate: Run, server: Recorded) -> None:
    server.gives("GET management/list", {"list": [ROW], "total": 1})
    server.gives("POST management/uninstall", True)
    done = tidegate("plugin", "uninstall", "acme/weather", "--base", server.base, "--key", "k")
    assert done.returncode == 0, done.stderr
    assert json.loads(server.asked[-1][1]) == {"plugin_installation_id": ROW["id"]}


def test_what_is_not_installed_is_one_line(tidegate: Run, server: Recorded) -> None:
    server.gives("GET management/list", {"list": [], "total": 0})
    done = tidegate("plugin", "uninstall", "acme/rain", "--base", server.base, "--key", "k")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_key_shows_the_server_s_own_words(tidegate: Run, server: Recorded) -> None:
    inner = json.dumps({"error_type": "PluginDaemonUnauthorizedError", "message": "unauthorized"})
    answer = {"code": -401, "message": inner, "data": None}
    server.gives("GET management/list", answer, status=401, plain=True)
    done = tidegate("plugin", "list", "--base", server.base, "--key", "wrong")
    assert (done.returncode, done.stderr) == (1, "tidegate: unauthorized\n")


def test_nothing_at_the_address_says_what_to_do(tidegate: Run) -> None:
    done = tidegate("plugin", "list", "--base", "http://127.0.0.1:1", "--key", "k")
    assert done.returncode == 1
    assert "nothing answers at http://127.0.0.1:1" in done.stderr
    assert "tidegate up" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--tenant", "me"), ("--base", "ftp://x"), ("--base", "localhost")]
)
def test_options_that_do_not_fit_are_named(tidegate: Run, option: str, value: str) -> None:
    done = tidegate("plugin", "list", "--key", "k", option, value)
    assert done.returncode == 2
    assert option in done.stderr


def test_a_broken_folder_is_named(tidegate: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = tidegate("plugin", "package", str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "manifest.yaml" in done.stderr


def test_sign_and_verify_with_a_generated_key(
    tidegate: Run, package: Path, home: Path, tmp_path: Path
) -> None:
    made = tidegate("signature", "generate", "-f", "mine")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "mine.private.pem").stat().st_mode & 0o777 == 0o600
    signed = tidegate("signature", "sign", str(package), "-p", "mine.private.pem")
    assert signed.returncode == 0, signed.stderr
    path = str(package.with_name("hello.signed.difypkg"))
    assert tidegate("signature", "verify", path, "-p", "mine.public.pem").returncode == 0
    stranger = tidegate("signature", "verify", path)
    assert stranger.returncode == 1
    assert "no signature that counts" in stranger.stderr
    again = tidegate("signature", "generate", "-f", "mine")
    assert again.returncode == 1, "an existing key is never overwritten"


STATUS = {
    "identifier": UID,
    "phase": "ready",
    "waiting": 0,
    "starts": 2,
    "deaths": 1,
    "quarantined_until": None,
    "last_error": "exit code 3\n",
    "instances": [{"pid": 42, "sessions": 3, "memory_bytes": 50 << 20}],
}


def test_status_shows_what_the_host_knows(tidegate: Run, server: Recorded) -> None:
    server.gives("GET plugins", [STATUS])
    done = tidegate("plugin", "status", "acme/weather", "--base", server.base, "--key", "k")
    words = done.stdout.splitlines()[1].split()
    assert words[:7] == ["acme/weather:0.0.1", "ready", "42", "3", "50", "MB", "2"]
    unknown = tidegate("plugin", "status", "acme/rain", "--base", server.base, "--key", "k")
    assert unknown.returncode == 1


def test_restart_names_the_exact_version(tidegate: Run, server: Recorded) -> None:
    server.gives("GET management/list", {"list": [ROW], "total": 1})
    server.gives("POST restart", [])
    done = tidegate("plugin", "restart", "acme/weather", "--base", server.base, "--key", "k")
    assert done.returncode == 0, done.stderr
    assert json.loads(server.asked[-1][1]) == {"plugin_unique_identifier": UID}
