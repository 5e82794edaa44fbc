"""Every way to start a role is the same way (R2, R3, R28, R29, R30, R31)."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.runtime.asking import ask
from tests.runtime.conftest import free_port
from tests.runtime.processes import BIN, ROOT
from tidegate.runtime.launcher import ROLES, command_for
from tidegate.settings import Settings

TEMPLATE = ROOT / ".vscode/launch.json.template"
DOCS = ROOT / "docs/runtime.md"
FIELDS = {
    "role", "runner", "pool", "workers", "patched", "grpc", "psycopg2", "reload", "pid", "ppid",
}  # fmt: skip
FORBIDDEN = r"python3? -m (tidegate\.)?app\b|flask run|-A (tidegate\.)?app(\.celery)?\b"


@pytest.mark.parametrize(
    ("debug", "flask"), [("", ""), ("true", "1"), ("false", "true"), ("1", "false")]
)
def test_R1_R2_debug_changes_nothing_in_the_fingerprint(probe, environ, debug, flask):
    probe(DEBUG=debug, FLASK_DEBUG=flask)
    state = ask(environ, "/state")
    assert set(state) == FIELDS
    assert (state["pool"], state["workers"], state["reload"]) == ("GeventWorker", 1, False)
    assert state["grpc"] and state["psycopg2"]  # noqa: PT018 - one fact
    assert len(state["patched"]) == 11


@pytest.mark.limit(240, "twelve starts of real roles")
def test_R2_R31_every_start_path_gives_the_same_process(start, environ, tmp_path):
    """up, docker and dev, each with another DEBUG; they differ in pids and in reload only."""

    def home(name: str) -> dict[str, str]:
        return {"TIDEGATE_HOME": str(tmp_path / name), "SERVER_PORT": str(free_port())}

    up = start("tidegate", "up", **home("up"), DEBUG="true", FLASK_DEBUG="1")
    up.wait_for("^tidegate: ready", 90)
    seen = {"up": dict.fromkeys(ROLES)}
    for line in re.findall(r'\{"event": "fingerprint".*\}$', up.text, re.MULTILINE):
        fields = json.loads(line)
        seen["up"][fields["role"]] = fields
    up.kill()
    paths = {
        "docker": lambda role: start(str(ROOT / "docker/entrypoint.sh"), MODE=role, **home(role)),
        "dev": lambda role: start(str(ROOT / f"dev/start-{role}"), **home(f"dev-{role}"),
                                  DEBUG="false"),
    }  # fmt: skip
    for path, starter in paths.items():
        programs = {role: starter(role) for role in ROLES}
        seen[path] = {role: one.fingerprint(90) for role, one in programs.items()}
        for one in programs.values():
            one.kill()
    for role in ROLES:
        alike = [_without_pids(seen[path][role]) for path in seen]
        assert alike[0] == alike[1]
        assert alike[2] == {**alike[0], "reload": role == "api"}


def test_R3_no_start_path_names_an_unsupported_runner():
    files = [
        *ROOT.glob("dev/*"), *ROOT.glob("docker/*"), ROOT / "Dockerfile", TEMPLATE,
        ROOT / "docker-compose.yaml", ROOT / "Makefile", ROOT / "README.md",
        *(path for path in ROOT.glob("scripts/*") if path.is_file()),
        *ROOT.glob(".ci/*"), *(ROOT / "docs").rglob("*.md"),
    ]  # fmt: skip
    assert len(files) > 12
    for path in files:
        text = path.read_text()
        if path == DOCS:
            text = re.sub(r"## (What is refused|Not supported)\n.*?(?=\n## |\Z)", "", text,
                          flags=re.DOTALL)  # fmt: skip
        assert not re.search(FORBIDDEN, text), path


def test_R28_the_debuggers_template_has_the_launchers_words():
    template = json.loads(TEMPLATE.read_text())
    by_name = {one["name"]: one for one in template["configurations"]}
    assert set(by_name) == set(ROLES)
    for role, one in by_name.items():
        assert one["gevent"] is True
        words = command_for(role, Settings())
        if role == "host":
            words = words[4:]  # the debugger cannot follow through the guard: docs/runtime.md
        program = words[2:] if words[1:2] == ["-m"] else [Path(words[0]).name, *words[1:]]
        assert [one["module"], *one["args"]] == program
    assert by_name["api"]["env"] == {"SERVER_WORKER_AMOUNT": "1", "GUNICORN_TIMEOUT": "0"}
    assert by_name["api"]["subProcess"] is True
    assert not re.search(FORBIDDEN + r"|prefork|solo|\bsync\b|--preload", TEMPLATE.read_text())


def test_every_role_in_the_scripts_goes_through_the_launcher():
    for role in ROLES:
        script = (ROOT / f"dev/start-{role}").read_text()
        reload = " --reload" if role == "api" else ""
        assert script.splitlines()[-1] == f'exec "$root/.venv/bin/tidegate" {role}{reload} "$@"'
    entry = (ROOT / "docker/entrypoint.sh").read_text()
    assert "gunicorn" not in entry
    assert "celery" not in entry


def test_the_image_has_an_init_and_no_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert lines[-1] == 'ENTRYPOINT ["tini", "--", "/app/docker/entrypoint.sh"]'
    assert "USER tidegate" in lines
    assert any("MODE=up" in line for line in lines)
    assert "TIDEGATE_HOME=/app/storage" in "\n".join(lines)


def test_the_compose_file_starts_every_role_once_and_holds_no_secret():
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    modes = {
        name: service["environment"]["MODE"]
        for name, service in compose["services"].items()
        if "MODE" in service.get("environment", {})
    }
    assert modes == {"tidegate": "up", **{role: role for role in ROLES}}
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            secret = name.endswith(("_KEY", "PASSWORD"))
            assert not secret or re.fullmatch(r"\$\{\w+:-\}", value), name


def test_R29_one_shot_commands_run_unpatched_and_give_their_own_code(start, environ):
    entry = str(ROOT / "docker/entrypoint.sh")
    migration = start(entry, MODE="migration")
    assert migration.wait(30) == 0
    assert "up to date" in migration.text
    assert "fingerprint" not in migration.text
    assert start(entry, "no-such-command", MODE="job").wait() == 2
    shown = start(entry, "migrate", "--help", MODE="job")
    assert shown.wait() == 0
    assert "unpatched" in shown.text
    unknown = start(entry, MODE="gevent")
    assert unknown.wait() == 78
    assert unknown.text.count("\n") == 1


def _commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("command", _commands())
def test_R30_every_command_of_the_page_passes_its_check(start, command):
    """``--check`` does all that comes before serving and prints what would be started."""
    settings = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    words = [word for word in shlex.split(command) if "=" not in word]
    program = str(ROOT / words[0]) if "/" in words[0] else words[0]
    done = start(program, *words[1:], "--check", **settings)
    assert done.wait(30) == 0, done.text
    assert str(BIN) in done.text
    assert "fingerprint" not in done.text


def test_R30_the_page_says_where_it_differs_and_what_is_not_supported():
    text = DOCS.read_text()
    for words in (
        "langgenius/dify#36014", "Celery never patches beat", "## What DEBUG means",
        "## Not supported", "## Debugging", "flask run",
    ):  # fmt: skip
        assert words in text
    assert len(_commands()) >= 14


def _without_pids(fields: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if key not in ("pid", "ppid", "event")}
