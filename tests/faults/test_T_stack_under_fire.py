"""The whole product under restarts and upgrades: nobody else loses a byte."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosting import PLUGINS, package_of, working_path
from tests.patience import wait_until
from tests.stack import TENANT, Answer, Stack, running_stack
from tidegate.ids import PluginIdentifier

pytestmark = [
    pytest.mark.limit(180, "starts all four roles; environments are built by uv"),
    pytest.mark.blocks_hub("starts processes, builds packages, reads a hundred streams"),
]

MISBEHAVE = "tidegate/misbehave"
CANARIES = {
    "SERVER_KEY": "canary-server-key-1f6d",
    "DIFY_INNER_API_KEY": "canary-inner-key-2e7c",
    "ADMIN_API_KEY": "canary-admin-key-3d8b",
}
CREDENTIAL = "canary-credential-4c9a"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("fire") / "home"
    given = {"DIFY_INNER_API_URL": "http://127.0.0.1:9", "TIDEGATE_GRACE": "20"}
    with cores_allowed(), running_stack(home, **CANARIES, **given) as stack:
        stack.install(package_of(PLUGINS / "misbehave", home.parent))
        yield stack


@contextmanager
def cores_allowed() -> Iterator[None]:
    """Whoever starts Tidegate here would let it dump its memory."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def data_of(deed: str, **given: object) -> dict[str, object]:
    return {
        "provider": "misbehave",
        "tool": "act",
        "tool_parameters": {"deed": deed, **given},
        "credentials": {"api_key": CREDENTIAL},
    }


def act(stack: Stack, deed: str, plugin: str = MISBEHAVE, **given: object) -> Answer:
    return stack.call(plugin, "tool/invoke", data_of(deed, **given))


class Crowd:
    """Calls in threads of their own (greenlets here); ``answers`` are those that have ended."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._threads: list[threading.Thread] = []

    def start(self, many: int, /, *call: object, **given: object) -> Crowd:
        def one() -> None:
            self.answers.append(act(*call, **given))

        added = [threading.Thread(target=one) for _ in range(many)]
        for thread in added:
            thread.start()
        self._threads += added
        return self

    def join(self) -> list[Answer]:
        for thread in self._threads:
            thread.join()
        assert len(self.answers) == len(self._threads)
        return self.answers


# --------------------------------------------------------------------------- roles


def api_worker(stack: Stack) -> int:
    return int(json.loads(stack.ask("GET", "/debug/runtime")[1])["data"]["api"]["pid"])


def test_a_rolling_restart_of_api_loses_no_call(stack):
    """HUP: the new worker serves, the old one ends its streams; calls go on all the time."""
    before = api_worker(stack)
    long = Crowd().start(10, stack, "stream", count=150, pause=0.02)
    short: list[Answer] = []
    ends_at = time.monotonic() + 6
    time.sleep(0.3)
    os.kill(stack.pid("api"), signal.SIGHUP)
    while time.monotonic() < ends_at:
        short.append(act(stack, "echo", text="on"))
    assert [(one.status, one.error) for one in short if one.texts != ["on"]] == []
    assert all(one.error is None and len(one.texts) == 150 for one in long.join())
    assert api_worker(stack) != before


def test_T_K8_a_restarted_host_ends_its_calls_typed_and_serves_the_next(stack):
    crowd = Crowd().start(10, stack, "stream", count=2000, pause=0.02)
    wait_until(lambda: stack.metric("plugin_invocations_active") >= 10, 10)
    old = stack.pid("host")
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    answers = crowd.join()
    assert time.monotonic() - began < 10
    assert {one.error["error_type"] for one in answers} == {"HostLost"}
    again = act(stack, "echo", text="again")  # while the host is away: the call waits for it
    assert (again.status, again.error, again.texts) == (200, None, ["again"])
    assert stack.pid("host") != old


# --------------------------------------------------------------------------- plugins


def test_T_K3_a_plugin_in_quarantine_is_shown_everywhere_and_restarted_by_hand(stack, tmp_path):
    mended, plugin = tmp_path / "mended", "tidegate/fragile"
    mended.touch()
    start = {"start.txt": f"crash_unless {mended}"}
    stack.install(package_of(PLUGINS / "misbehave", tmp_path, name="fragile", files=start))
    pid = int(act(stack, "pid", plugin).texts[0])
    mended.unlink()
    os.kill(pid, signal.SIGKILL)
    errors = [act(stack, "echo", plugin).error for _ in range(7)]
    kinds = [one["error_type"] for one in errors if one["error_type"] != "PluginDied"]
    assert kinds[:6] == ["PluginStartFailed"] * 5 + ["PluginQuarantined"]
    assert act(stack, "echo", text="beside").texts == ["beside"]
    status, health = stack.ask("GET", f"/health/plugins/{plugin}")
    assert (status, b"exit code 3" in health) == (503, True)
    assert stack.ask("GET", "/health/deep")[0] == 200
    shown = tidegate(stack, "plugin", "status", plugin)
    assert "quarantined" in shown
    assert "exit code 3" in shown
    mended.touch()
    tidegate(stack, "plugin", "restart", plugin)
    assert act(stack, "echo", plugin, text="mended").texts == ["mended"]
    assert stack.ask("GET", f"/health/plugins/{plugin}")[0] == 200


def tidegate(stack: Stack, *words: str) -> str:
    """A command of a person; what it printed."""
    program = str(Path(sys.executable).with_name("tidegate"))
    where = ("--base", f"http://127.0.0.1:{stack.port}", "--key", stack.key, "--tenant", TENANT)
    done = subprocess.run(
        [program, *words, *where], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --------------------------------------------------------------------------- installations


def version(stack: Stack, scratch: Path, number: int, name: str) -> bytes:
    manifest = (PLUGINS / "misbehave" / "manifest.yaml").read_text()
    manifest = manifest.replace("0.0.1", f"0.0.{number}").replace(
        "name: misbehave", f"name: {name}"
    )
    return package_of(PLUGINS / "misbehave", scratch, files={"manifest.yaml": manifest})


def upgrade(stack: Stack, old: str, new: bytes) -> str:
    identifier = stack.upload(new)
    asked = {
        "original_plugin_unique_identifier": old,
        "new_plugin_unique_identifier": identifier,
        "source": "package",
        "meta": {},
    }
    answer = stack.data("POST", "install/upgrade", asked)
    task = stack.wait_task(answer["task_id"])
    assert task["status"] == "success", task
    return identifier


def installed(stack: Stack, plugin: str) -> dict[str, str]:
    rows = stack.data("GET", "list?page=1&page_size=100")["list"]
    [row] = [one for one in rows if one["plugin_id"] == plugin]
    return dict(row)


def test_T_I3_an_upgrade_under_a_hundred_streams_fails_none_of_them(stack, tmp_path):
    stack.install(version(stack, tmp_path, 1, "moving"))
    old = installed(stack, "tidegate/moving")["plugin_unique_identifier"]
    crowd = Crowd().start(100, stack, "stream", "tidegate/moving", count=200, pause=0.02)
    time.sleep(1)
    new = upgrade(stack, old, version(stack, tmp_path, 2, "moving"))
    assert act(stack, "echo", "tidegate/moving", text="new").texts == ["new"]
    answers = crowd.join()
    assert all(one.error is None and len(one.texts) == 200 for one in answers)
    assert installed(stack, "tidegate/moving")["plugin_unique_identifier"] == new


@pytest.mark.stretched
@pytest.mark.limit(600, "the last package is kept for a while, and collected by the schedule")
def test_T13_after_upgrades_and_an_uninstall_nothing_is_left(stack, tmp_path):
    rounds = 10 if os.environ.get("TIDEGATE_TEST_SOAK") else 3
    name, plugin = "passing", "tidegate/passing"
    stack.install(version(stack, tmp_path, 1, name))
    current = installed(stack, plugin)["plugin_unique_identifier"]
    versions = [current]
    for number in range(2, rounds + 2):
        current = upgrade(stack, current, version(stack, tmp_path, number, name))
        versions.append(current)
        assert act(stack, "echo", plugin, text="here").texts == ["here"]
    row = installed(stack, plugin)
    stack.data("POST", "uninstall", {"plugin_installation_id": row["id"]})
    wait_until(lambda: not _left(stack, versions), 60)


def _left(stack: Stack, versions: list[str]) -> list[str]:
    """Files, processes, packages and rows that name one of the versions."""
    found = [str(path) for one in versions for path in _files(stack, one) if path.exists()]
    found += [one for one in versions if one.split("@")[1] in _processes()]
    _, plugins = stack.ask("GET", "/debug/plugins")
    known = [one for one in versions if one.encode() in plugins]
    for one in versions:
        path = f"/plugin/{TENANT}/management/fetch/identifier?plugin_unique_identifier={one}"
        if b'"data":true' in stack.ask("GET", path)[1]:
            known.append(f"declared: {one}")
    return found + known


def _files(stack: Stack, identifier: str) -> list[Path]:
    folder = PluginIdentifier.parse(identifier).folder
    environments = working_path().glob(f"**/*.users/{folder.replace('/', '+')}")
    return [
        stack.home / "plugin_packages" / identifier,
        stack.home / "plugin" / identifier,
        working_path() / folder,
        *environments,
    ]


def _processes() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found.append(os.readlink(path / "cwd"))
        except OSError:
            continue  # ended meanwhile, or a kernel thread
    return "\n".join(found)


# --------------------------------------------------------------------------- secrets


def test_T_S14_canary_secrets_are_in_no_log_no_answer_and_no_metric(stack):
    """Last in this file: what all tests before it made the roles say is searched as well."""
    said = []
    for deed in ("fail", "die", "crash", "broken_line", "store", "no_such_deed"):
        path, body, headers = stack.request(MISBEHAVE, "tool/invoke", data_of(deed))
        said.append(stack.ask("POST", path, body, **_underscored(headers)))
    said.append(
        stack.ask("POST", path, b'{"data": ' + CREDENTIAL.encode(), **_underscored(headers))
    )
    said.append(stack.ask("GET", "/debug/runtime", None, X_Admin_Api_Key="wrong"))
    for path in ("/metrics/", "/debug/runtime", "/debug/plugins", "/health/deep"):
        said.append(stack.ask("GET", path))
    crash(stack, "api")
    crash(stack, "host")
    answers = b"\n".join(body for _, body in said)
    logs = {path: path.read_bytes() for path in stack.home.rglob("*.log*") if path.is_file()}
    logs[stack.log] = stack.log.read_bytes()
    assert any(b"SIGABRT" in text or b"signal 6" in text for text in logs.values())
    assert any(b"cannot go on" in text for text in logs.values()), "the logs are the right ones"
    for canary in (*CANARIES.values(), CREDENTIAL):
        assert canary.encode() not in answers
        assert [str(path) for path, text in logs.items() if canary.encode() in text] == []


def crash(stack: Stack, role: str) -> None:
    """As a defect of native code would: with a dump of memory, where one is allowed."""
    pid = stack.pid(role)
    folder = Path(os.readlink(f"/proc/{pid}/cwd"))
    [limit] = [
        line.split()[4]
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
        if line.startswith("Max core file size")
    ]
    assert limit == "0"
    before = set(folder.glob("core*"))
    os.kill(pid, signal.SIGABRT)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30)
    assert set(folder.glob("core*")) == before
    assert list(stack.home.rglob("core*")) == []
    wait_until(lambda: _is_ready(stack), 60)


def _is_ready(stack: Stack) -> bool:
    try:
        return stack.ask("GET", "/health/ready")[0] == 200
    except OSError:
        return False


def _underscored(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}
