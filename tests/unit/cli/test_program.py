"""The tree of commands: help, errors in one line, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers import PostgresServer
from tests.unit.cli.conftest import Recorded, Run
from tidegate.cli.program import LazyGroup, root


def _paths(group: LazyGroup, *above: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(None):  # type: ignore[arg-type]
        command = group.get_command(None, name)  # type: ignore[arg-type]
        found.append((*above, name))
        if isinstance(command, LazyGroup):
            found += _paths(command, *above, name)
    return found


def test_every_command_of_the_tree_has_help() -> None:
    from click.testing import CliRunner

    for path in _paths(root):
        result = CliRunner().invoke(root, [*path, "--help"])
        assert result.exit_code == 0, path
        assert "Usage:" in result.output


def test_an_unknown_command_is_one_line_and_fails(tidegate: Run) -> None:
    done = tidegate("fly")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["tidegate: No such command 'fly'. (see tidegate --help)"]


def test_without_a_command_the_help_is_shown(tidegate: Run) -> None:
    done = tidegate()
    assert done.returncode == 2
    assert "Start and watch the four roles" in done.stderr


def test_version(tidegate: Run) -> None:
    assert tidegate("--version").stdout.startswith("tidegate ")


def test_without_a_key_the_line_says_where_it_was_looked_for(tidegate: Run, home: Path) -> None:
    done = tidegate("plugin", "list")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(home / "keys" / "server.key") in done.stderr


def test_a_setting_that_does_not_fit_is_one_line(tidegate: Run) -> None:
    done = tidegate("plugin", "list", SERVER_PORT="many")
    assert done.returncode == 78
    assert done.stderr == "tidegate: SERVER_PORT takes a whole number, not 'many'\n"


@pytest.mark.parametrize("role", ["api", "worker", "beat", "host"])
def test_a_role_goes_to_the_launcher(tidegate: Run, role: str) -> None:
    done = tidegate(role, "--print")
    assert done.returncode == 0, done.stderr
    assert {"api": "gunicorn", "host": "host_entrypoint"}.get(role, "celery") in done.stdout


def test_up_shows_its_commands_and_makes_relative_homes_absolute(
    tidegate: Run, tmp_path: Path
) -> None:
    done = tidegate("up", "--print", TIDEGATE_HOME="here")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert (tmp_path / "here" / "keys" / "server.key").exists()


def test_doctor_tells_what_is_not_there_yet_without_failing(tidegate: Run, home: Path) -> None:
    done = tidegate("doctor", "--json", SERVER_PORT="1")
    assert done.returncode == 0, done.stderr
    states = {row["check"]: row["state"] for row in json.loads(done.stdout)}
    assert states["data folder"] == "warning"
    assert states["python"] == "ok"
    assert states["api"] == "warning"
    assert not home.exists(), "doctor only looks"


def test_doctor_fails_on_a_key_that_others_can_read(tidegate: Run, home: Path) -> None:
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "server.key").write_text("secret")
    (home / "keys" / "server.key").chmod(0o644)
    done = tidegate("doctor")
    assert done.returncode == 1
    assert "chmod 600" in done.stdout


def test_doctor_tells_other_tenants_of_its_addresses_from_tidegate(
    tidegate: Run, server: Recorded
) -> None:
    server.gives("GET check", ["not", "ours"], plain=True)
    port = server.base.rpartition(":")[2]
    done = tidegate("doctor", "--json", SERVER_PORT=port, TIDEGATE_LINK_HOST=f"127.0.0.1:{port}")
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert rows["api"]["state"] == "broken"
    assert "something else answers" in rows["api"]["says"]
    assert rows["host"] == {"check": "host", "state": "ok", "says": f"127.0.0.1:{port}"}
    done = tidegate("doctor", "--json", SERVER_PORT="1", TIDEGATE_LINK_HOST="127.0.0.1:1")
    assert "TIDEGATE_LINK_HOST" in done.stdout


def test_T22_doctor_tells_whether_dify_takes_the_key(tidegate: Run, server: Recorded) -> None:
    def row(address: str) -> tuple[str, str]:
        environ = {"DIFY_INNER_API_URL": address, "DIFY_INNER_API_KEY": "wrong"}
        done = tidegate("doctor", "--json", SERVER_PORT="1", **environ)
        found = {row["check"]: row for row in json.loads(done.stdout)}["back-calls"]
        return found["state"], found["says"]

    state, says = row("http://127.0.0.1:1")
    assert (state, "127.0.0.1:1" in says) == ("warning", True)
    server.gives("POST invoke/encrypt", [], plain=True)  # 200: none of Dify's
    assert row(server.base) == (
        "broken",
        f"{server.base} answers, but it takes a request that Dify would refuse: is it Dify?",
    )


def test_doctor_names_a_database_that_was_not_migrated(
    tidegate: Run, postgres: PostgresServer
) -> None:
    with postgres.database() as environ:
        done = tidegate("doctor", "--json", SERVER_PORT="1", **environ)
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert rows["storage"]["state"] == "warning"
    assert "tidegate migrate" in rows["storage"]["says"]


def test_migrate_runs_unpatched_and_is_repeatable(tidegate: Run) -> None:
    for _ in range(2):
        done = tidegate("migrate")
        assert done.returncode == 0, done.stderr
    assert tidegate("doctor", "--json").returncode == 0


def test_logs_lists_shows_and_names_what_is_missing(tidegate: Run, home: Path) -> None:
    folder = home / "logs" / "plugins" / "acme"
    folder.mkdir(parents=True)
    (folder / "weather.log").write_text("one\ntwo\nthree\n")
    (home / "logs" / "api.log").write_text("up\n")
    assert {line.split("\t")[0] for line in tidegate("logs").stdout.splitlines()} == {
        "acme/weather",
        "api",
    }
    assert tidegate("logs", "acme/weather", "-n", "2").stdout == "two\nthree\n"
    missing = tidegate("logs", "acme/rain")
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1
